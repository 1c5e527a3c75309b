"""The verb `migrc completion`: what makes a shell ask this program while one types."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from scenarios.report.console import print_json
from scenarios.verbs import options


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@options.json_
@options.no_seed
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print what makes a shell complete verbs, options, tests, scenarios, policies and settings.

    bash, zsh: eval "$(migrc completion bash)" when the shell starts; fish: into
    ~/.config/fish/completions/migrc.fish.
    """
    found = get_completion_class(shell)
    assert found is not None, "click knows the three"
    script = found(context.find_root().command, {}, "migrc", "_MIGRC_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
