"""Fixtures, parameters, exceptions, captured output, and assertion rewriting."""

import pytest
from bank import Account


@pytest.fixture
def account():
    return Account(10)


@pytest.mark.parametrize(("amount", "left"), [(1, 9), (10, 0)])
def test_withdraw(account, amount, left):
    account.withdraw(amount)
    assert account.balance == left


def test_overdraw(account):
    with pytest.raises(ValueError, match="not enough"):
        account.withdraw(11)


def test_output(account, capsys):
    print(account.balance)
    assert capsys.readouterr().out == "10\n"


def test_wrong_on_purpose(account):
    assert account.balance == 11
