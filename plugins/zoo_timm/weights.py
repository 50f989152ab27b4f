"""Where pretrained weights lie: in the cache of the Hugging Face hub, or fetched into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub

from zoo.plugin import ZooError

#: Seconds until the hub must have answered. Its own client would try each file for half a minute.
TIMEOUT_SECONDS = 5
#: Names of safetensors where timm names a pickle, or no file.
_SAFE = {
    "": "model.safetensors",
    "pytorch_model.bin": "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}


def weights_file(name: str, settings: Any) -> Path:
    """The safetensors file with the weights of the model `name`; settings: timm's pretrained config of it.

    Raises:
        ZooError: there are none, or they are neither cached nor within reach.
    """
    repository = getattr(settings, "hf_hub_id", None)
    if not repository:
        raise ZooError(
            f"timm has no pretrained weights for {name!r}; set pretrained: false, or take a name of "
            f"zoo list 'timm/*.*'"
        )
    given = settings.hf_hub_filename or ""
    file = _SAFE.get(given, given.removesuffix(".bin") + ".safetensors" if given.endswith(".bin") else given)
    if not file.endswith(".safetensors"):
        raise ZooError(
            f"the weights of {name!r} exist as {file!r} only, but the zoo reads safetensors; "
            "set pretrained: false"
        )
    cached = huggingface_hub.try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # One question with a time limit first: the download itself retries for long where nothing answers.
        url = huggingface_hub.hf_hub_url(repository, file)
        huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)
        return Path(huggingface_hub.hf_hub_download(repository, file))
    except Exception as error:  # the client raises errors of several HTTP libraries
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ZooError(
            f"the pretrained weights of {name!r} are out of reach: {repository}/{file} is not in the cache "
            f"of the Hugging Face hub ({huggingface_hub.constants.HF_HUB_CACHE}) and fetching it failed "
            f"({reason[:200]}). Set pretrained: false, or put the file into the cache (on a machine with "
            f"network: hf download {repository} {file}) and set HF_HOME to it"
        ) from error
