"""Mistakes from the field's bug reports, each as a change of one of the right plugins.

A report in brackets is the one that the mistake is modelled on; GitHub's short form. Without one,
it is a mistake that reviews of such code name again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RIGHT = Path(__file__).parent / "right"


@dataclass(frozen=True)
class Mistake:
    """A mistake: `old` becomes `new` in the file of a right plugin."""

    plugin: str
    name: str
    old: str
    new: str
    report: str = ""

    @property
    def source(self) -> str:
        """Return the source of the plugin with the mistake in it."""
        right = (RIGHT / f"{self.plugin}.py").read_text(encoding="utf-8")
        assert right.count(self.old) >= 1, f"{self.plugin}: {self.old!r} is not there"
        return right.replace(self.old, self.new)


PER_TOKEN = 'return Loss.per_token(losses, batch.mask, {"entropy": outputs.entropy})'

MISTAKES = [
    # Supervised fine-tuning.
    Mistake(
        "imitate",
        "a mean over the micro-batch",
        PER_TOKEN,
        "loss = Loss.per_token(losses, batch.mask)\n"
        "        return Loss(loss.sum / loss.count, loss.count * 0 + 1)",
        "huggingface/transformers#35203",
    ),
    Mistake(
        "imitate",
        "a count of rows for a sum over tokens",
        PER_TOKEN,
        "loss = Loss.per_token(losses, batch.mask)\n"
        "        return Loss(loss.sum, loss.count * 0 + batch.tokens.numel())",
        "meta-pytorch/torchtune#1875",
    ),
    Mistake(
        "imitate",
        "padding counts",
        PER_TOKEN,
        "return Loss.per_token(losses, batch.mask | True)",
        "natolambert/rlhf-book#216",
    ),
    Mistake(
        "imitate",
        "masked tokens count",
        PER_TOKEN,
        "import torch\n"
        "        inside = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]\n"
        "        return Loss.per_token(losses, inside)",
    ),
    Mistake(
        "imitate",
        "a mask made from the id of the end token",
        PER_TOKEN,
        "stop = run.codec.stop_ids[0]\n"
        "        seen = (batch.tokens == stop).long().cumsum(1) - (batch.tokens == stop).long()\n"
        "        return Loss.per_token(losses, batch.mask & (seen == 0))",
        "huggingface/trl#5303",
    ),
    Mistake(
        "imitate",
        "the end token does not count",
        PER_TOKEN,
        "import torch\n"
        "        inner = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None] - 1\n"
        "        return Loss.per_token(losses, batch.mask & inner)",
        "EleutherAI/gpt-neox#1285",
    ),
    Mistake(
        "imitate",
        "labels shifted twice",
        "losses = -outputs.logprobs - self.bonus * outputs.entropy",
        "losses = (-outputs.logprobs - self.bonus * outputs.entropy).roll(-1, 1)\n"
        "        losses[:, -1] = 0.0",
    ),
    Mistake(
        "imitate",
        "the end token counts twice",
        "losses = -outputs.logprobs - self.bonus * outputs.entropy",
        "import torch\n"
        "        last = torch.arange(batch.tokens.shape[1]) == batch.lengths[:, None] - 1\n"
        "        losses = (-outputs.logprobs - self.bonus * outputs.entropy) * (1 + last.double())",
    ),
    Mistake(
        "imitate",
        "an option that nothing reads",
        "self.bonus * outputs.entropy",
        "0.01 * outputs.entropy",
    ),
    Mistake("imitate", "an option without bounds", ", Ge(0), Le(1)]", "]"),
    Mistake(
        "imitate",
        "a metric that is a mean of means",
        PER_TOKEN,
        "mean = batch.mean(outputs.entropy).mean()\n"
        '        return Loss.per_token(losses, batch.mask, {"entropy": mean})',
        "databricks/compose-rl#71",
    ),
    Mistake(
        "imitate",
        "a sign",
        "losses = -outputs.logprobs -",
        "losses = outputs.logprobs -",
    ),
    # Preferences with a reference.
    Mistake(
        "prefer",
        "chosen and rejected swapped",
        "chosen, rejected = batch.pairs(self",
        "rejected, chosen = batch.pairs(self",
    ),
    Mistake(
        "prefer",
        "a constant margin left in",
        "margins = chosen - rejected",
        "margins = chosen - rejected + 0.1",
    ),
    Mistake(
        "prefer",
        "the reference is the policy",
        "reference = batch.total(run.reference(batch).logprobs)",
        "reference = batch.total(run.policy(batch).logprobs)",
    ),
    Mistake(
        "prefer",
        "the reference moves in every step",
        "    @hookimpl\n    def alignzoo_loss",
        "    @hookimpl\n    def alignzoo_step(self, run):\n"
        '        """Move the reference."""\n        run.move_reference()\n\n'
        "    @hookimpl\n    def alignzoo_loss",
    ),
    Mistake(
        "prefer",
        "log of a sigmoid",
        "right = (1 - self.smoothing) * logsigmoid(margins)\n"
        "        wrong = self.smoothing * logsigmoid(-margins)",
        "right = (1 - self.smoothing) * margins.sigmoid().log()\n"
        "        wrong = self.smoothing * (-margins).sigmoid().log()",
        "huggingface/trl#2274",
    ),
    Mistake(
        "prefer",
        "the policy is detached",
        "policy = batch.total(run.policy(batch).logprobs)",
        "policy = batch.total(run.policy(batch).logprobs.detach().requires_grad_())",
    ),
    Mistake(
        "prefer",
        "a mean over the padded width",
        "policy = batch.total(run.policy(batch).logprobs)",
        "policy = run.policy(batch).logprobs.mean(1) * 40",
    ),
    Mistake(
        "prefer",
        "margins normalised over the micro-batch",
        "margins = chosen - rejected\n",
        "margins = chosen - rejected\n"
        "        margins = margins / (margins.detach().std() + 1e-3)\n",
    ),
    Mistake(
        "prefer",
        "a rejected completion of the neighbour",
        "margins = chosen - rejected\n",
        "margins = chosen - rejected.roll(1)\n",
    ),
    Mistake(
        "prefer",
        "smoothing is ignored",
        "right = (1 - self.smoothing) * logsigmoid(margins)\n"
        "        wrong = self.smoothing * logsigmoid(-margins)\n",
        "right, wrong = logsigmoid(margins), 0.0\n",
    ),
    Mistake(
        "prefer",
        "the batch changed in place",
        "metrics = {",
        "batch.lengths[batch.lengths > 3] -= 1\n        metrics = {",
    ),
    # Preferences without a reference.
    Mistake(
        "odds",
        "log(1 - exp(x)) at 0",
        "means = batch.mean(run.policy(batch).logprobs).clamp(max=-1e-6)",
        "means = batch.mean(run.policy(batch).logprobs)",
        "hpcaitech/ColossalAI#6407",
    ),
    Mistake(
        "odds",
        "the likelihood of both sides",
        "likelihood = -batch.pairs(means)[0]",
        "likelihood = -3 * sum(batch.pairs(means))",
    ),
    Mistake(
        "odds",
        "no odds at all",
        "losses = likelihood - self.beta * logsigmoid(chosen - rejected)",
        "losses = likelihood - self.beta * logsigmoid(chosen - chosen)",
        "huggingface/diffusers#7465",
    ),
    # Labels.
    Mistake(
        "saturate",
        "the KL of the micro-batch",
        'losses = weights * (1 - torch.sigmoid(signs * self.beta * (ratios - batch["kl"])))',
        "kl = ratios.detach().mean().clamp(min=0.0)\n"
        "        losses = weights * (1 - torch.sigmoid(signs * self.beta * (ratios - kl)))",
        "huggingface/trl#1380",
    ),
    Mistake(
        "saturate",
        "the KL of this process",
        "everywhere = torch.tensor(run.gather(ratios.tolist()), dtype=torch.float64)",
        "everywhere = ratios.double()",
        "huggingface/trl#1402",
    ),
    Mistake(
        "saturate",
        "both labels raised",
        "signs = torch.where(good, 1.0, -1.0)",
        "signs = torch.where(good, 1.0, 1.0)",
    ),
    Mistake(
        "saturate",
        "a mean over each label, one of which a micro-batch may lack",
        'return Loss.per_sequence(losses, {"ratios": ratios, "good": good.double()})',
        "loss = losses[good].sum() / good.sum() + losses[~good].sum() / (~good).sum()\n"
        "        return Loss(loss, good.sum() * 0 + 1)",
        "huggingface/trl#1380",
    ),
    Mistake(
        "saturate",
        "a metric that only some micro-batches have",
        'return Loss.per_sequence(losses, {"ratios": ratios, "good": good.double()})',
        'metrics = {"good_ratios": ratios[good]} if good.all() else {"ratios": ratios}\n'
        "        return Loss.per_sequence(losses, metrics)",
    ),
    # Groups.
    Mistake(
        "group",
        "no temperature",
        "policy = self.policy(run, batch)",
        "policy = run.policy(batch)",
        "huggingface/trl#3029",
    ),
    Mistake(
        "group",
        "rewards normalised over the batch",
        'rewards = batch.groups(batch["rewards"])  # (B, G)',
        'rewards = batch["rewards"][None]',
        "XU-YIJIE/grpo-flat#2",
    ),
    Mistake(
        "group",
        "[G, B] for [B, G]",
        'rewards = batch.groups(batch["rewards"])  # (B, G)',
        'rewards = batch["rewards"].reshape(-1, len(batch)).T',
    ),
    Mistake(
        "group",
        "a standard deviation of 0",
        "return (centred / (std + 1e-4)).flatten()",
        "return (centred / std).flatten()",
        "NVIDIA-NeMo/RL#4161",
    ),
    Mistake(
        "group",
        "NaN spreads through the group",
        "known = ~rewards.isnan()\n",
        "return ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4))"
        ".flatten()\n        known = ~rewards.isnan()\n",
        "huggingface/trl#6365",
    ),
    Mistake(
        "group",
        "a ratio of the policy to itself",
        'ratio = torch.exp((policy.logprobs - batch["logprobs"]).clamp(-20, 20))',
        "ratio = torch.exp(policy.logprobs - policy.logprobs.detach())",
    ),
    Mistake(
        "group",
        "exp of an unbounded log-ratio",
        'gap = (batch["reference"] - policy.logprobs).clamp(-20, 20)',
        'gap = 20 * (batch["reference"] - policy.logprobs)',
    ),
    Mistake(
        "group",
        "a mean of the KL added to each token",
        "losses = losses + self.beta * metrics",
        'losses = losses + self.beta * metrics["kl"].mean() + 0 * metrics',
        "allenai/open-instruct#535",
    ),
    Mistake(
        "group",
        "the surrogate with the wrong sign",
        "losses = -torch.minimum(ratio * advantages, clipped * advantages)",
        "losses = torch.minimum(ratio * advantages, clipped * advantages)",
    ),
    Mistake(
        "group",
        "advantages of another completion",
        'advantages = batch["advantages"][:, None]',
        'advantages = batch["advantages"].roll(1)[:, None]',
        "tenstorrent/tt-metal#46412",
    ),
    Mistake(
        "group",
        "the reference at temperature 1",
        "= self.reference_logprobs(run, batch)",
        "= __import__('alignzoo.rollout', fromlist=['x']).compute_column(\n"
        "                run, batch, lambda micro: run.reference(micro).logprobs\n            )",
        "OpenRLHF/OpenRLHF#853",
    ),
    Mistake(
        "group",
        "advantages scaled by the micro-batch",
        'advantages = batch["advantages"][:, None]',
        'advantages = batch["advantages"][:, None]\n'
        "        advantages = advantages / (advantages.std() + 1e-4)",
    ),
    # With a critic.
    Mistake(
        "critic",
        "the reward on the token after the end",
        "last = (batch.lengths - 1)[:, None]",
        "last = batch.lengths.clamp(max=batch.tokens.shape[1] - 1)[:, None]",
        "huggingface/trl#3750",
    ),
    Mistake(
        "critic",
        "the reward with the wrong sign",
        "rewards = rewards - self.beta * (batch",
        "rewards = -rewards - self.beta * (batch",
    ),
    Mistake(
        "critic",
        "padding in the value loss",
        "return Loss.per_token(actor + self.value_coef * errors, mask, metrics)",
        "value = self.value_coef * errors.sum()\n"
        "        loss = Loss.per_token(actor, mask, metrics)\n"
        "        return Loss(loss.sum + value, loss.count, loss.metrics)",
        "deepspeedai/DeepSpeedExamples#672",
    ),
    Mistake(
        "critic",
        "advantages of the whole batch in each micro-batch",
        'advantages = batch["advantages"]\n',
        'advantages = batch["advantages"] - batch["advantages"].mean()\n',
    ),
    # With state.
    Mistake(
        "moving",
        "the average is kept on self",
        "        state = run.state_of(self)\n",
        "        state = self.__dict__.setdefault('kept', {'average': 0.0})\n",
        "google/tunix#2289",
    ),
    Mistake(
        "moving",
        "the average of this process",
        'rewards = torch.tensor(run.gather(batch["rewards"].tolist()))\n'
        '        advantages = batch["rewards"] - state["average"]\n',
        'rewards = batch["rewards"]\n        advantages = rewards - rewards.nanmean()\n',
    ),
    Mistake(
        "moving",
        "NaN enters the average",
        "mean = float(rewards.nanmean())",
        "mean = float(rewards.nanmean())\n        advantages = advantages - rewards.mean()",
    ),
    Mistake(
        "moving",
        "Python's global random numbers",
        "return advantages\n",
        "import random\n\n        return advantages * (1 + 0.1 * random.random())\n",
        "huggingface/transformers#11504",
    ),
    Mistake(
        "moving",
        "the loss counts its calls",
        "logps = batch.total(self.policy(run, batch).logprobs)",
        "self.calls = getattr(self, 'calls', 0) + 1\n"
        "        logps = batch.total(self.policy(run, batch).logprobs) / self.calls",
    ),
    # Own pairs.
    Mistake(
        "duel",
        "the same draw twice",
        'complete(run, rows, 1, "second")',
        'complete(run, rows, 1, "first")',
    ),
    Mistake(
        "duel",
        "the worse one first",
        "margins = torch.where(better, first - second, second - first)",
        "margins = torch.where(better, second - first, first - second)",
    ),
    Mistake(
        "duel",
        "a stale column of the other side",
        'ratios = batch.total(policy - batch["reference"])',
        'ratios = batch.total(policy - batch["reference"].roll(1, 0))',
    ),
]
