"""Encrypted clients over two servers whose processes are killed and whose links are cut at random.

Run by `python -m tests.chaos`; see `tests.chaos.options`. In the end every device must be able to
decrypt every message that it should: `tests.chaos.ledger` says which these are.
"""
