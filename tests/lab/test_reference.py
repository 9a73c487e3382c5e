"""The reference has every module that is handed out and taken home, and every command with what it answers to --help."""

import click
import pytest
from click.testing import CliRunner

import helpers
from helpers.__main__ import main
from helpers.lab import reference


def test_every_module_of_the_front_door_has_a_page_and_each_once():
    names = reference.names()
    assert len(names) == len(set(names)) and set(helpers.__all__) <= set(names)
    home = {"gate", "sensitivity", "bits", "tflite_training", "rescue", "channels", "measure"}
    assert home <= set(reference.groups()["To take home"]) == set(names[: names.index("measure") + 1])
    index = reference.index()
    assert all(f"[`{name}`]({name}.rst)" in index for name in names)
    assert "| [`gate`](gate.rst) | Accept or reject a compressed model" in index


def test_a_page_says_how_a_module_is_imported():
    assert "   from helpers import gate\n\n.. automodule:: helpers.deploy.gate\n   :members:\n" in reference.page(
        "gate"
    )
    assert "   from helpers.deploy import policy\n" in reference.page("policy")
    lab = reference.page("lab")
    assert lab.startswith("lab\n===\n") and "automodule:: helpers.lab\n" in lab and "helpers.lab.run\n" in lab
    for line in (
        name.split("code-block:: python\n\n   ")[1].split("\n")[0] for name in map(reference.page, reference.names())
    ):
        exec(line, {})


@pytest.mark.parametrize("words", ["gate", "target prepare", "site"])
def test_a_command_is_described_by_itself(words):
    page = reference.commands(main)
    told = page.split(f"# {words}\n\n```text\n")[1].split("\n```")[0]
    ran = CliRunner().invoke(
        main, [*words.split(), "--help"], prog_name="compression-lab", terminal_width=reference.WIDTH
    )
    assert told == ran.output.rstrip()


def test_commands_of_commands_stand_below():
    @click.group()
    def one():
        """Of one."""

    @one.group()
    def two():
        """Of two."""

    @two.command()
    def three():
        """Of three."""

    page = reference.commands(one, "one")
    assert [line for line in page.splitlines() if line.startswith("#")] == ["# Commands", "## two", "### two three"]
    assert "Usage: one two three [OPTIONS]" in page and page.startswith("# Commands\n\nOf one.\n")
