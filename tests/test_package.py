"""What is installed: type checkers find a marker in each package."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def test_every_package_is_marked_as_typed_and_carries_the_mark():
    setup = (ROOT / "setup.py").read_text()
    packages = re.findall(r'"(\w+)\*"', re.search(r"find_packages\(include=\[(.*?)\]\)", setup)[1])
    assert len(packages) == 4
    assert all((ROOT / name / "py.typed").is_file() for name in packages)
    assert '"": ["py.typed"]' in setup


def test_the_image_gets_every_package():
    dockerfile, carried = ((ROOT / name).read_text() for name in ("Dockerfile", ".dockerignore"))
    for name in ("madry_cifar", "rvs_tf", "sinkhorn_tf", "experiments", "setup.py"):
        assert re.search(rf"^COPY .*\b{name}\b", dockerfile, re.MULTILINE)
        assert f"!{name}\n" in carried
