"""What an evaluation prints."""

from rich.console import Console

from madry_cifar.evaluation.table import table


def entry(**protocol):
    draws = {"number": 10, "mean": 61.25, "std": 1.5}
    return {
        "accuracy": 60.0,
        "images": 20,
        "protocol": protocol,
        "draws": draws,
        "reconstruction_error": {"mean": 0.1, "std": 0.2},
    }


def test_what_has_no_epsilon_is_told_once_with_all_that_belongs_to_it():
    """Several ε: below the second one's attack stands nothing of another attack."""
    about = {
        "model": "mine",
        "split": "test",
        "provenance": "",
        "seed": 0,
        "batch_size": 20,
        "images": 20,
        "dataset": "digits",
    }
    contents = [
        about
        | {
            "epsilon": epsilon,
            "step_size": 2,
            "checkpoint": 1,
            "attacks": {"natural": entry(), "pgd-20": entry(epsilon=epsilon)},
        }
        for epsilon in (4, 8)
    ]
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table(contents))
    lines = [
        line.split()[0]
        for line in captured.get().splitlines()
        if line.startswith((" natural", " pgd-20", "natural", "pgd-20"))
    ]
    assert lines == ["natural", "pgd-20", "pgd-20"]
    assert captured.get().count("other draws, mean") == captured.get().count("reconstruction error") == 3
