"""The core's own plugin: its components come in by the same hook as a stranger's (torch-free)."""

from __future__ import annotations

import zoo.plugin as zp
from zoo.data.episodes_specs import EPISODES
from zoo.data.events_specs import EVENTS
from zoo.data.fetched_specs import FETCHED
from zoo.data.own.specs import OWN
from zoo.data.specs import SPECS as DATASETS

__zoo_api__ = 1

_TRANSFORMER = zp.Paper(title="Attention Is All You Need", url="https://arxiv.org/abs/1706.03762", year=2017)
_INTENSITY_FREE = zp.Paper(
    title="Intensity-Free Learning of Temporal Point Processes",
    url="https://arxiv.org/abs/1909.12127",
    year=2020,
)

_DECISIONS = zp.Paper(title="Decision Transformer", url="https://arxiv.org/abs/2106.01345", year=2021)

MODELS = (
    zp.ModelSpec(
        name="transformer",
        target="zoo.layers.transformer:Transformer",
        config="zoo.layers.config:TransformerConfig",
        summary="Pre-norm residual stack; a mixer and a feed-forward per layer.",
        paper=_TRANSFORMER,
        causal="optional",
        streaming=True,
        state="linear",
        cost="quadratic",
        tags=("attention", "baseline"),
        since="0.1",
    ),
    zp.ModelSpec(
        name="mlp_net",
        target="zoo.layers.mlp_net:MlpNet",
        config="zoo.layers.config:MlpNetConfig",
        summary="Residual multi-layer perceptron on vectors, the baseline for tables.",
        accepts="vector",
        causal="never",
        tags=("baseline",),
        since="0.1",
    ),
)

MIXERS = (
    zp.MixerSpec(
        name="softmax",
        target="zoo.layers.attention:SoftmaxAttention",
        config="zoo.layers.config:SoftmaxConfig",
        summary="Scaled dot-product attention, optionally in a sliding window.",
        paper=_TRANSFORMER,
        causal="optional",
        streaming=True,
        state="linear",
        cost="quadratic",
        rotary=True,
        exact_when={},
        reference="zoo.layers.reference:softmax_attention",
        since="0.1",
    ),
)

FEED_FORWARDS = (
    zp.FeedForwardSpec(
        name="mlp",
        target="zoo.layers.feed_forward:Mlp",
        config="zoo.layers.config:MlpConfig",
        summary="Two linear maps with a GELU between them.",
        paper=_TRANSFORMER,
        since="0.1",
    ),
    zp.FeedForwardSpec(
        name="swiglu",
        target="zoo.layers.feed_forward:SwiGlu",
        config="zoo.layers.config:SwiGluConfig",
        summary="Gated linear unit with SiLU.",
        paper=zp.Paper(
            title="GLU Variants Improve Transformer", url="https://arxiv.org/abs/2002.05202", year=2020
        ),
        since="0.1",
    ),
)

STEMS = (
    zp.StemSpec(
        name="patches",
        target="zoo.layers.stems:Patches",
        config="zoo.layers.config:PatchesConfig",
        summary="Square patches of an image, each a token.",
        accepts="image",
        returns="tokens",
    ),
    zp.StemSpec(
        name="flatten",
        target="zoo.layers.stems:Flatten",
        config="zoo.layers.config:FlattenConfig",
        summary="All pixels as one vector.",
        accepts="image",
        returns="vector",
    ),
    zp.StemSpec(
        name="embedding",
        target="zoo.layers.stems:Embedding",
        config="zoo.layers.config:EmbeddingConfig",
        summary="One learned vector per symbol.",
        accepts="ids",
        returns="tokens",
    ),
    zp.StemSpec(
        name="bag",
        target="zoo.layers.stems:Bag",
        config="zoo.layers.config:BagConfig",
        summary="The mean of the symbols' vectors; their order is lost.",
        accepts="ids",
        returns="vector",
    ),
    zp.StemSpec(
        name="steps",
        target="zoo.layers.stems:Steps",
        config="zoo.layers.config:StepsConfig",
        summary="Each time step a token.",
        accepts="series",
        returns="tokens",
    ),
    zp.StemSpec(
        name="events",
        target="zoo.layers.stems:EventSteps",
        config="zoo.layers.config:EventsConfig",
        summary="Each event a token: its mark, the gap before it and its time.",
        paper=zp.Paper(title="Transformer Hawkes Process", url="https://arxiv.org/abs/2002.09291", year=2020),
        status="variant",
        accepts="events",
        returns="tokens",
    ),
    zp.StemSpec(
        name="episodes",
        target="zoo.layers.decisions:EpisodeTokens",
        config="zoo.layers.config:EpisodesStemConfig",
        summary="Return to go, state and action of each step, three tokens, with the time step.",
        paper=_DECISIONS,
        accepts="episodes",
        returns="tokens",
    ),
    zp.StemSpec(
        name="convolutions",
        target="zoo.layers.stems:Convolutions",
        config="zoo.layers.config:ConvolutionsConfig",
        summary="Convolutions over the past steps; with their stride, fewer tokens than steps.",
        accepts="series",
        returns="tokens",
        cost=20,
        since="0.1",
    ),
    zp.StemSpec(
        name="series_pool",
        target="zoo.layers.stems:SeriesPool",
        config="zoo.layers.config:SeriesPoolConfig",
        summary="Mean, deviation, minimum and maximum of each channel.",
        accepts="series",
        returns="vector",
    ),
    zp.StemSpec(
        name="features",
        target="zoo.layers.stems:Features",
        config="zoo.layers.config:FeaturesConfig",
        summary="Each feature of a table a token.",
        paper=zp.Paper(
            title="Revisiting Deep Learning Models for Tabular Data",
            url="https://arxiv.org/abs/2106.11959",
            year=2021,
        ),
        accepts="vector",
        returns="tokens",
    ),
    zp.StemSpec(
        name="linear",
        target="zoo.layers.stems:Linear",
        config="zoo.layers.config:LinearConfig",
        summary="One linear map to the model's width.",
        accepts="vector",
        returns="vector",
    ),
)

HEADS = (
    zp.HeadSpec(
        name="pooled_classifier",
        target="zoo.layers.heads:PooledHead",
        config="zoo.layers.config:PooledHeadConfig",
        summary="Pool the tokens, then classify.",
        accepts="tokens",
        answers="classes",
    ),
    zp.HeadSpec(
        name="pooled_regressor",
        target="zoo.layers.heads:PooledHead",
        config="zoo.layers.config:PooledHeadConfig",
        summary="Pool the tokens, then predict values.",
        accepts="tokens",
        answers="values",
    ),
    zp.HeadSpec(
        name="classifier",
        target="zoo.layers.heads:VectorHead",
        config="zoo.layers.config:VectorHeadConfig",
        summary="One linear map to the classes.",
        accepts="vector",
        answers="classes",
    ),
    zp.HeadSpec(
        name="regressor",
        target="zoo.layers.heads:VectorHead",
        config="zoo.layers.config:VectorHeadConfig",
        summary="One linear map to the values.",
        accepts="vector",
        answers="values",
    ),
    zp.HeadSpec(
        name="image_classifier",
        target="zoo.layers.heads:ImageHead",
        config="zoo.layers.config:ImageHeadConfig",
        summary="Average the feature map, then classify.",
        accepts="image",
        answers="classes",
    ),
    zp.HeadSpec(
        name="image_regressor",
        target="zoo.layers.heads:ImageHead",
        config="zoo.layers.config:ImageHeadConfig",
        summary="Average the feature map, then predict values.",
        accepts="image",
        answers="values",
    ),
    zp.HeadSpec(
        name="next_id",
        target="zoo.layers.heads:NextIdHead",
        config="zoo.layers.config:NextIdHeadConfig",
        summary="Scores of the next symbol at each position, optionally with the stem's own vectors.",
        accepts="tokens",
        answers="next_id",
    ),
    zp.HeadSpec(
        name="next_event",
        target="zoo.layers.heads:NextEventHead",
        config="zoo.layers.config:NextEventHeadConfig",
        summary="A mixture of log-normal distributions of the time until the next event, with its marks.",
        paper=_INTENSITY_FREE,
        status="variant",
        accepts="tokens",
        answers="next_event",
    ),
    zp.HeadSpec(
        name="actions",
        target="zoo.layers.decisions:ActionsHead",
        config="zoo.layers.config:ActionsHeadConfig",
        summary="What to do at each token: scores of the choices, or values within their limit.",
        paper=_DECISIONS,
        accepts="tokens",
        answers="actions",
    ),
    zp.HeadSpec(
        name="pooled_forecaster",
        target="zoo.layers.heads:PooledForecastHead",
        config="zoo.layers.config:ForecastHeadConfig",
        summary="All steps to come, from the last kept token (or a pool), and a linear skip of the inputs.",
        accepts="tokens",
        answers="forecast",
    ),
    zp.HeadSpec(
        name="forecaster",
        target="zoo.layers.heads:VectorForecastHead",
        config="zoo.layers.config:VectorForecastHeadConfig",
        summary="All steps to come by one linear map, and a linear skip of the inputs.",
        accepts="vector",
        answers="forecast",
    ),
    zp.HeadSpec(
        name="token_classifier",
        target="zoo.layers.heads:TokenHead",
        config="zoo.layers.config:TokenHeadConfig",
        summary="A label for each token.",
        accepts="tokens",
        answers="labels",
    ),
    zp.HeadSpec(
        name="pooled_multi",
        target="zoo.layers.heads:PooledHead",
        config="zoo.layers.config:PooledHeadConfig",
        summary="Pool the tokens, then answer several questions.",
        accepts="tokens",
        answers="multi",
    ),
    zp.HeadSpec(
        name="multi",
        target="zoo.layers.heads:VectorHead",
        config="zoo.layers.config:VectorHeadConfig",
        summary="One linear map to the answers to several questions.",
        accepts="vector",
        answers="multi",
    ),
    zp.HeadSpec(
        name="image_multi",
        target="zoo.layers.heads:ImageHead",
        config="zoo.layers.config:ImageHeadConfig",
        summary="Average the feature map, then answer several questions.",
        accepts="image",
        answers="multi",
    ),
)

TASKS = (
    zp.TaskSpec(
        name="classification",
        target="zoo.tasks.classification:Classification",
        config="zoo.tasks.config:ClassificationConfig",
        summary="Cross entropy; accuracy and macro F1.",
        answers="classes",
        monitor="val/accuracy",
        mode="max",
        metrics=("loss", "accuracy", "f1_macro"),
    ),
    zp.TaskSpec(
        name="regression",
        target="zoo.tasks.regression:Regression",
        config="zoo.tasks.config:RegressionConfig",
        summary="Mean squared error of the values measured; MAE and R2, of each value too.",
        answers="values",
        monitor="val/mse",
        mode="min",
        metrics=("loss", "mse", "mae", "r2", "mae_*", "r2_*"),
    ),
    zp.TaskSpec(
        name="language_modelling",
        target="zoo.tasks.language_modelling:LanguageModelling",
        config="zoo.tasks.config:LanguageModellingConfig",
        summary="Cross entropy of the next symbol; bits per symbol, perplexity, accuracy.",
        answers="next_id",
        needs_causal=True,
        monitor="val/bits_per_{unit}",
        mode="min",
        metrics=("loss", "bits_per_{unit}", "perplexity", "accuracy", "exact_match"),
    ),
    zp.TaskSpec(
        name="event_forecasting",
        target="zoo.tasks.event_forecasting:EventForecasting",
        summary="Negative log likelihood of the next event, of its time and its mark; RMSE, accuracy.",
        paper=_INTENSITY_FREE,
        answers="next_event",
        needs_causal=True,
        monitor="val/nll",
        mode="min",
        metrics=("loss", "nll", "nll_time", "nll_mark", "rmse_time", "accuracy"),
    ),
    zp.TaskSpec(
        name="control",
        target="zoo.tasks.control:Control",
        config="zoo.tasks.config:ControlConfig",
        summary="Act as in recorded episodes, told the return to reach; then returns of playing.",
        paper=_DECISIONS,
        answers="actions",
        needs_causal=True,
        monitor="val/loss",
        mode="min",
        metrics=("loss", "error"),
        played=("return", "return_deviation", "score"),
    ),
    zp.TaskSpec(
        name="forecasting",
        target="zoo.tasks.forecasting:Forecasting",
        config="zoo.tasks.config:ForecastingConfig",
        summary="Squared error of the steps to come; MSE and MAE, overall and by horizon.",
        answers="forecast",
        monitor="val/mse",
        mode="min",
        metrics=("loss", "mse", "mae", "mse_h*"),
    ),
    zp.TaskSpec(
        name="sequence_labelling",
        target="zoo.tasks.sequence_labelling:SequenceLabelling",
        config="zoo.tasks.config:SequenceLabellingConfig",
        summary="Cross entropy of each token's label; accuracy, macro F1, exact match.",
        answers="labels",
        monitor="val/accuracy",
        mode="max",
        metrics=("loss", "accuracy", "f1_macro", "exact_match"),
    ),
    zp.TaskSpec(
        name="multi_task",
        target="zoo.tasks.multi_task:MultiTask",
        config="zoo.tasks.config:MultiTaskConfig",
        summary="A weighted sum of the losses of several questions; the metrics of each.",
        answers="multi",
        monitor="val/loss",
        mode="min",
        metrics=("loss", "*/*"),
    ),
)

DECODERS: tuple[zp.Spec, ...] = (
    zp.DecoderSpec(
        name="greedy",
        target="zoo.decoders.samplers:Greedy",
        summary="The likeliest symbol, always.",
    ),
    zp.DecoderSpec(
        name="sample",
        target="zoo.decoders.samplers:Sample",
        config="zoo.decoders.config:SampleConfig",
        summary="By chance, with a temperature, among the top k, the top p, those above min p.",
    ),
    zp.DecoderSpec(
        name="mirostat",
        target="zoo.decoders.samplers:Mirostat",
        config="zoo.decoders.config:MirostatConfig",
        summary="By chance, with the surprise of the text held near a target.",
        paper=zp.Paper(
            title="Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity",
            url="https://arxiv.org/abs/2007.14966",
            year=2020,
        ),
    ),
    zp.DecoderSpec(
        name="top_h",
        target="zoo.decoders.samplers:TopH",
        config="zoo.decoders.config:TopHConfig",
        summary="By chance, among the likeliest that keep a share of the distribution's entropy.",
    ),
)


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (
        *MODELS,
        *MIXERS,
        *FEED_FORWARDS,
        *STEMS,
        *HEADS,
        *TASKS,
        *DECODERS,
        *DATASETS,
        *EVENTS,
        *EPISODES,
        *FETCHED,
        *OWN,
    )
