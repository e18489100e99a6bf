"""Which waiting items run together, and within which bounds."""

from collections.abc import Callable, Sequence


def choose_batch(
    lengths: Sequence[int],
    max_batch_tokens: int,
    max_padding: float,
    owners: Sequence[str] | None = None,
    allowance: Callable[[str], float] | None = None,
    overhead_tokens: float = 0.0,
) -> list[int]:
    """Choose the items to run with the first one: its neighbours in length, as long as budget and padding allow.

    More padding than `max_padding` is taken where the time for a real token falls all the same, since what a batch
    costs beside its tokens is shared by more of them.

    The first item is always in the batch, so an item waits for at most as many batches as there are items before it.

    Args:
        lengths: Real tokens of the waiting items, in the order in which they are due; at least one.
        max_batch_tokens: Bound on longest x number of items. The first item is taken even if it is longer.
        max_padding: Bound on the share of padding in longest x number of items, in [0, 1).
        owners: Whose each item is; all one owner's if None.
        allowance: Padded tokens that an owner's items may use in this batch. The first item is taken in any case.
        overhead_tokens: What a batch costs beside its tokens, in the time of one padded token.

    Returns:
        Indices into `lengths`, longest item first; equal lengths in the order in which they are due.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    place = order.index(0)
    budget = _Budgets(owners, allowance)
    budget.take(0)
    longer, shorter = place - 1, place + 1  # the next candidates on either side
    before: list[int] = []
    after: list[int] = []
    longest = real = lengths[0]
    while True:
        # Whom the budget leaves no room now it leaves none later: the batch only grows.
        while longer >= 0 and not budget.allows_longer(order[longer], lengths[order[longer]]):
            longer -= 1
        while shorter < len(order) and not budget.allows(order[shorter], longest):
            shorter += 1
        count = len(before) + len(after) + 2
        cost = longest * (count - 1) + overhead_tokens
        # (padded tokens, real tokens, grows to the longer side) of each possible next batch.
        options = []
        if longer >= 0:
            length = lengths[order[longer]]
            options.append((length * count, real + length, True))
        if shorter < len(order):
            options.append((longest * count, real + lengths[order[shorter]], False))
        allowed = [
            (padded - tokens, grows_longer, tokens)
            for padded, tokens, grows_longer in options
            if padded <= max_batch_tokens
            and (padded - tokens <= max_padding * padded or (padded + overhead_tokens) * real < cost * tokens)
        ]
        if not allowed:
            return [*reversed(before), 0, *after]
        _, grows_longer, real = min(allowed)
        if grows_longer:
            before.append(order[longer])
            longest = lengths[order[longer]]
            longer -= 1
        else:
            after.append(order[shorter])
            shorter += 1
        budget.take(before[-1] if grows_longer else after[-1])


class _Budgets:
    """What each owner has in the batch, against what it may have."""

    def __init__(self, owners: Sequence[str] | None, allowance: Callable[[str], float] | None) -> None:
        self._owners = owners
        self._allowance = allowance
        self._taken: dict[str, int] = {}
        self._allowed: dict[str, float] = {}

    def take(self, index: int) -> None:
        if self._owners is not None:
            owner = self._owners[index]
            self._taken[owner] = self._taken.get(owner, 0) + 1

    def allows(self, index: int, longest: int) -> bool:
        """Whether an item's owner may have it too."""
        return self._owners is None or self._allows(self._owners[index], 1, longest)

    def allows_longer(self, index: int, longest: int) -> bool:
        """The same of an item that makes the others longer: whose they are is charged for that."""
        if self._owners is None:
            return True
        own = self._owners[index]
        return self._allows(own, 1, longest) and all(self._allows(owner, 0, longest) for owner in self._taken)

    def _allows(self, owner: str, more: int, longest: int) -> bool:
        if self._allowance is None:
            return True
        if owner not in self._allowed:
            self._allowed[owner] = self._allowance(owner)
        return (self._taken.get(owner, 0) + more) * longest <= self._allowed[owner]
