from __future__ import annotations

import jaxtorch_bridge

RUN = (
    "import sys; sys.argv = ['jaxtorch', *{arguments!r}]\n"
    "from jaxtorch_bridge.tools.cli import main\n"
)


def test_version(jaxtorch):
    done = jaxtorch("--version")
    assert (done.code, done.out) == (0, f"jaxtorch {jaxtorch_bridge.__version__}\n")


def test_wrong_usage_exits_with_2(jaxtorch):
    done = jaxtorch("no-such-subcommand")
    assert done.code == 2
    assert "no-such-subcommand" in done.err


def test_without_typer_the_message_says_what_to_install(run_python):
    script = RUN.format(arguments=["--version"]) + (
        "sys.modules['typer'] = None\ntry: main()\nexcept SystemExit as stop: print(stop.code)\n"
    )
    text = run_python(script, check=False)
    assert text.startswith("2\n")
    assert 'pip install "jaxtorch-bridge[cli]"' in text


def test_help_needs_neither_jax_nor_torch(run_python):
    script = RUN.format(arguments=["--help"]) + (
        "try: main()\n"
        "except SystemExit as stop: print(stop.code)\n"
        "print(sorted({'jax', 'torch', 'numpy', 'pydantic'} & set(sys.modules)))\n"
    )
    assert run_python(script).splitlines()[-2:] == ["0", "[]"]
