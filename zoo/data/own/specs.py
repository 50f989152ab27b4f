"""The specs of people's own data (torch-free). Their kinds are those of the examples in `samples`."""

from __future__ import annotations

from typing import Any

from zoo.kinds import Classes, Forecast, Ids, Image, NextId, Series, Vector
from zoo.specs import DatasetSpec


def _own(name: str, **fields: Any) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        sample=f"zoo.data.own.samples:{name}",
        examples="as many as your files hold",
        licence="yours",
        baseline=f"zoo baseline {name} KEY=VALUE ... measures it",
        since="0.1",
        **fields,
    )


_TABLE = _own(
    "table",
    target="zoo.data.own.table:load_table",
    config="zoo.data.own.table_config:TableConfig",
    summary="Your own table: a CSV or Parquet file, with a column to predict or several.",
    inputs=Vector(features=6),
    targets=Classes(count=2, names=("no", "yes")),
    source="a file of yours: CSV with a header, or Parquet (extra `parquet`)",
    tags=("own", "table"),
)

_IMAGE_FOLDER = _own(
    "image_folder",
    target="zoo.data.own.images:load_image_folder",
    config="zoo.data.own.images_config:ImageFolderConfig",
    summary="Your own images: a folder with a folder for each class, read from disk as they are needed.",
    inputs=Image(channels=3, height=12, width=16),
    targets=Classes(count=2, names=("left", "right")),
    source="a folder of yours: CLASS/*.png, or train/CLASS/*.png, val/..., test/...",
    tags=("own", "image", "classification"),
)

_TEXT_FILES = _own(
    "text_files",
    target="zoo.data.own.text:load_text_files",
    config="zoo.data.own.text_config:TextFilesConfig",
    summary="Your own text, a file or a folder of them: characters, bytes or a bpe; larger than memory too.",
    inputs=Ids(vocab=33, length=64),
    targets=NextId(vocab=33, unit="character"),
    source="a text file of yours, or a folder of them",
    tags=("own", "text", "language_modelling"),
)

_SERIES_FILES = _own(
    "series_files",
    target="zoo.data.own.series:load_series_files",
    config="zoo.data.own.series_config:SeriesFilesConfig",
    summary="Your own time series to classify: .ts files, or a CSV.",
    inputs=Series(channels=2, length=18, ragged=True),
    targets=Classes(count=2, names=("circle", "line")),
    source="files of yours: .ts (or UCR's .tsv) for train and test, or a CSV",
    tags=("own", "series", "classification"),
)

_FORECAST_TABLE = _own(
    "forecast_table",
    target="zoo.data.own.forecast:load_forecast_table",
    config="zoo.data.own.forecast_config:ForecastTableConfig",
    summary="Your own time series to forecast: a CSV or Parquet file, a row per step, a column per channel.",
    inputs=Series(channels=2, length=24),
    targets=Forecast(channels=1, horizon=6, names=("warmth",)),
    source="a file of yours: CSV with a header, or Parquet (extra `parquet`)",
    tags=("own", "series", "forecasting"),
)

_TORCHVISION = _own(
    "torchvision",
    target="zoo.data.own.torchvision:load_torchvision",
    config="zoo.data.own.library_config:TorchvisionConfig",
    summary="Any dataset of torchvision that gives images of one class each, by the name of its class.",
    inputs=Image(channels=3, height=12, width=16),
    targets=Classes(count=3, names=("0", "1", "2")),
    source="torchvision, which downloads it where it is not there",
    tags=("own", "image", "classification"),
)

_HUGGING_FACE = _own(
    "hugging_face",
    target="zoo.data.own.hugging_face:load_hugging_face",
    config="zoo.data.own.library_config:HuggingFaceConfig",
    summary="Any dataset of the Hugging Face hub: images or texts with a class, texts to model, tables.",
    inputs=Vector(features=6),
    targets=Classes(count=2, names=("no", "yes")),
    source="the hub, or local files through a builder of Hugging Face's datasets (extra `hf`)",
    extras=("hf",),
    tags=("own", "image", "text", "table"),
)

OWN: tuple[DatasetSpec, ...] = (
    _TABLE,
    _IMAGE_FOLDER,
    _TEXT_FILES,
    _SERIES_FILES,
    _FORECAST_TABLE,
    _TORCHVISION,
    _HUGGING_FACE,
)
