"""The chain of an exception, as other processes are told of it."""

from __future__ import annotations

from penstock.errors import exception_chain

_TENSORFLOW = """{{function_node __wrapped__IteratorGetNext}} ValueError: bad record
Traceback (most recent call last):

  File "parse.py", line 7, in field
    return record["label"]

KeyError: 'label'


The above exception was the direct cause of the following exception:


Traceback (most recent call last):

  File "script_ops.py", line 270, in __call__
    return func(device, token, args)

ValueError: bad record


\t [[{{node EagerPyFunc}}]] [Op:IteratorGetNext]"""


def raised(text: str, cause: BaseException | None = None) -> ValueError:
    try:
        raise ValueError(text) from cause
    except ValueError as error:
        return error


def in_handling(error: BaseException, *, hidden: bool) -> BaseException:
    """An error that was raised while a KeyError was handled."""
    error.__context__ = KeyError("label")
    error.__suppress_context__ = hidden
    return error


def test_causes_and_contexts_follow_one_another() -> None:
    caused = in_handling(raised("bad", OSError("gone")), hidden=True)
    assert exception_chain(caused) == ("ValueError: bad", "OSError: gone")
    assert exception_chain(in_handling(RuntimeError(), hidden=True)) == ("RuntimeError",)
    shown = in_handling(RuntimeError("later"), hidden=False)
    assert exception_chain(shown) == ("RuntimeError: later", "KeyError: 'label'")


def test_a_python_function_in_tensorflow_tells_its_chain_as_text() -> None:
    chain = exception_chain(RuntimeError(_TENSORFLOW))
    assert chain[0].endswith("ValueError: bad record")
    assert chain[1:] == ("ValueError: bad record", "KeyError: 'label'")


def test_it_is_bounded_and_survives_what_cannot_be_shown() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    error: BaseException = Odd()
    for number in range(40):
        error = raised(f"{number} \ud800 " + "x" * 2000, error)
    chain = exception_chain(error)
    assert len(chain) == 16
    assert max(map(len, chain)) == 500
    assert chain[0].startswith("ValueError: 39 ?")
    assert exception_chain(Odd()) == ("Odd: <its message cannot be shown: ZeroDivisionError>",)
    loop = ValueError("a")
    loop.__cause__ = loop
    assert exception_chain(loop) == ("ValueError: a",)
