"""alignzoo run dpo --with ./examples/hooks/start.py"""

from alignzoo import hookimpl


class CountParameters:
    """Say how many parameters are trained"""

    @hookimpl
    def alignzoo_start(self, run):
        trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
        run.ui.note(f"{trained:,} parameters are trained")
