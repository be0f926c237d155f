"""alignzoo run grpo --task sums --sampler ./examples/hooks/complete.py"""

from alignzoo.rollout import Sampler, Sampling, generate, seeds


class InMemory(Sampler):
    """Draw completions from the model in memory, as the default sampler does"""

    # `Sampler` turns this method into the hook `alignzoo_complete`.
    def complete(self, run, rows, size, stream):
        prompts = [row.prompt for row in rows for _ in range(size)]
        sampling = Sampling.of(run.recipe, run.codec)
        with run.model.evaluating():
            drawn = generate(run.model, prompts, seeds(run, len(prompts), stream), sampling)
        return [drawn[i : i + size] for i in range(0, len(drawn), size)]
