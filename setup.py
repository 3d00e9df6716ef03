"""Package definition."""

import pathlib

from setuptools import find_packages, setup

PARTS = ("all", "table2", "table3", "table4", "figure2", "figure3", "figure4")

setup(
    name="robustness-via-synthesis",
    version="0.1.0",
    description="Robust training with generative adversarial perturbations (RvS), its baselines and attacks, "
    "in TensorFlow 2",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["madry_cifar*", "sinkhorn_tf*", "rvs_tf*", "experiments*"]),
    package_data={
        "": ["py.typed"],
        "experiments": ["Snakefile", "published.csv", "presets/*", "presets/gan/*", "profiles/*", "templates/*"],
    },
    install_requires=[
        "tensorflow>=2.16,<2.22",
        "tensorflow-datasets>=4.9.4",
        "tensorboard",
        "absl-py",
        "numpy",
        "tqdm",
        "rich",
        "typing_extensions",
        "pillow",  # the words on images in TensorBoard, which needs it itself from 2.20 on
        "scikit-learn",  # the embedded data set
        "importlib_resources",  # tensorflow-datasets needs it to prepare data, and does not say so
        "setuptools<81",  # TensorBoard 2.20 and older import pkg_resources
    ],
    extras_require={
        "experiments": ["snakemake>=9", "matplotlib", "jinja2"],  # tables and figures
        "gpu": ["tensorflow[and-cuda]>=2.16,<2.22"],
        "profile": ["xprof"],  # TensorBoard's Profile tab
        "torch": ["torch"],  # weights that other defences' authors published: import_torch, export_torch
        "xla": ["jax"],  # runs what `rvs_tf.export --what=training` writes; its tests
        # independent implementations that tests and benchmarks compare with
        "peers": ["foolbox>=3.3.4", "POT>=0.9.4", "adversarial-robustness-toolbox>=1.20", "multiprocess"],
        "peers-original": ["torch", "torchattacks>=3.5.1"],
        "peers-sinkhorn": ["torch", "geomloss>=0.3", "ott-jax>=0.5"],
        "dev": [
            *("pytest>=8", "pytest-xdist", "hypothesis", "scipy", "ruff==0.17.6", "pre-commit"),
            *("nbclient", "ipykernel"),  # the notebook of examples/
        ],
    },
    entry_points={
        "madry_cifar.defenses": [  # by the name of each; see madry_cifar/training/registry.py
            "rvs = rvs_tf.defense:RobustnessViaSynthesis",
            "adt_exp = rvs_tf.defenses:ADTExp",
            "adt_expam = rvs_tf.defenses:ADTExpAM",
            "adt_impam = rvs_tf.defenses:ADTImpAM",
            "adv_interp = rvs_tf.defenses:AdvInterp",
            "adv_vertex = rvs_tf.defenses:AdvVertex",
            "bilateral = rvs_tf.defenses:Bilateral",
            "direct = rvs_tf.defenses:Direct",
            "featscatter = rvs_tf.defenses:FeatScatter",
            "gat = rvs_tf.defenses:GAT",
            "l2l = rvs_tf.defenses:L2L",
            "l2l_da = rvs_tf.defenses:L2LDA",
            "learn2perturb = rvs_tf.defenses:Learn2Perturb",
            "trades = rvs_tf.defenses:Trades",
        ],
        "console_scripts": [
            "rvs-train = rvs_tf.train:command",
            "rvs-evaluate = rvs_tf.evaluate:command",
            "rvs-diagnose = rvs_tf.diagnose:command",
            "rvs-export = rvs_tf.export:command",
            "rvs-train-advgan = rvs_tf.train_advgan:command",
            "rvs-train-gan = rvs_tf.train_gan:command",
            "rvs-diversity = rvs_tf.analysis.diversity:command",
            "rvs-latent-space = rvs_tf.analysis.latent_space:command",
            "rvs-demo = experiments.demo:command",
            *(f"rvs-{name} = experiments.{name}:command" for name in PARTS),
            "madry-train = madry_cifar.train:command",
            "madry-eval = madry_cifar.eval:command",
            "madry-run-attack = madry_cifar.run_attack:command",
            "madry-import-tf1 = madry_cifar.import_tf1:command",
            "madry-export-tf1 = madry_cifar.export_tf1:command",
            "madry-import-xla = madry_cifar.import_xla:command",
            "madry-import-torch = madry_cifar.import_torch:command",
            "madry-export-torch = madry_cifar.export_torch:command",
        ],
    },
)
