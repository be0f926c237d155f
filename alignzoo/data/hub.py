"""Rows from the Hugging Face hub, and from folders that `datasets` has saved."""

from __future__ import annotations

import logging
from pathlib import Path

from alignzoo.data.formats import Row, first_line
from alignzoo.errors import BadInput


def read_hub(name: str) -> list[Row]:
    """The train split of `owner/name`, or of one configuration: `owner/name:configuration`."""
    import datasets

    repository, _, configuration = name.partition(":")
    # Without a network, each of its retries would print two lines before our one message.
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return datasets.load_dataset(repository, configuration or None, split="train").to_list()
    except Exception as error:  # every failure of a download has its own type
        raise BadInput(
            f"neither a file here nor a data set that the hub gave: {first_line(error)}",
            where=name,
            hint="check the name and the network (offline, only what is in the cache can be "
            "had); a configuration is chosen as owner/name:configuration",
        ) from None
    finally:
        logger.setLevel(level)


def is_saved(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote this folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def read_saved(folder: Path) -> tuple[list[Row], list[Row]]:
    """The rows to learn from and the held-out ones of a saved data set."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.Dataset):
            return loaded.to_list(), []
        if "train" in loaded:
            return loaded["train"].to_list(), loaded["test"].to_list() if "test" in loaded else []
    except Exception as error:
        raise BadInput(
            f"cannot be read as a saved data set: {first_line(error)}", where=str(folder)
        ) from None
    raise BadInput(f"no split named train; there are: {', '.join(loaded)}", where=str(folder))
