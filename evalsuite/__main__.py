"""Entry of the command line: exit codes, one line for what a user can fix, a traceback only for bugs."""

from __future__ import annotations

import sys
import traceback


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code (see `EvalsuiteError.exit_code`; 2 usage, 70 a bug of ours)."""
    import click

    from evalsuite.cli import command
    from evalsuite.errors import EvalsuiteError

    try:
        # click itself would exit 1 for some errors; the codes here are ours.
        outcome = command.main(arguments, prog_name="evalsuite", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except EvalsuiteError as error:
        return _tell(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.UsageError as error:
        hint = f" (see: {' '.join(error.ctx.command_path.split())} --help)" if error.ctx is not None else ""
        return _tell(f"{error.format_message()}{hint}", 2)
    except click.ClickException as error:
        return _tell(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        return _tell("stopped", 3)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; keep the interpreter from complaining at exit.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        return 0
    except Exception:
        traceback.print_exc()
        return _tell("this is a bug in evalsuite; the lines above say where", 70)


def _tell(message: str, code: int) -> int:
    print(f"evalsuite: {message}", file=sys.stderr)
    return code


def entry() -> None:
    """What the installed `evalsuite` script calls."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
