"""Entry of the command line: exit codes, one line for what a user can fix, a traceback only for bugs."""

from __future__ import annotations

import sys
import traceback


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 clean, 1 over the limit, 2 misuse, 3 incomplete, 70 a bug."""
    import click

    from decontam.cli import command
    from decontam.errors import DecontamError

    try:
        # click itself would exit 1 for some errors; the codes here are ours.
        outcome = command.main(
            arguments, prog_name=_program(), complete_var="_DECONTAM_COMPLETE", standalone_mode=False
        )
        return outcome if isinstance(outcome, int) else 0
    except DecontamError as error:
        return _tell(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.UsageError as error:
        hint = f" (see: {error.ctx.command_path} --help)" if error.ctx is not None else ""
        return _tell(f"{error.format_message()}{hint}", 2)
    except click.ClickException as error:
        return _tell(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        return _tell("stopped; the same command goes on", 3)
    except SystemExit as ended:
        # Told to raise, click exits with 1 only where the reader of a pipe (head, less) has seen enough.
        return 0 if ended.code == 1 else int(ended.code or 0)
    except Exception:
        traceback.print_exc()
        return _tell("this is a bug in decontam; the lines above say where", 70)


def _program() -> str:
    return "decontam" if sys.argv[0].endswith("decontam") else "python -m decontam"


def _tell(message: str, code: int) -> int:
    from decontam.report.passages import visible_lines

    # Names of files and fields are others' text: spelled out, they cannot steer the terminal.
    print(f"decontam: {visible_lines(message)}", file=sys.stderr)
    return code


def entry() -> None:
    """What an installed script calls."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
