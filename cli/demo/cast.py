"""Who and what plays in the story: chosen by the seed, so that nothing in the product can know the names."""

from __future__ import annotations

import random
from dataclasses import dataclass

PEOPLE = ("amara", "bo", "chidi", "dilnoza", "eun-ji", "fatou", "goran", "hanne", "itzel", "joao")
TEAMS = ("vision", "search", "support", "fraud", "speech", "routing")
MODELS = ("heron", "osprey", "lark", "petrel", "siskin", "wren")
DATASETS = ("tickets", "manuals", "clinic-notes", "reviews", "call-logs")
PURPOSES = ("triage", "summaries", "search", "routing")
TENANTS = ("acme", "globex", "initech", "umbra")
LICENCES = ("CC-BY-4.0", "CDLA-Permissive-2.0", "ODbL-1.0")


@dataclass(frozen=True, slots=True)
class Cast:
    """`quota` in whole GPUs; the good Deployment asks for `replicas` times `gpus`, which fits, the greedy one for more."""

    tenant: str
    team: str
    other_team: str
    author: str
    approvers: tuple[str, str]
    model: str
    dataset: str
    purpose: str
    licence: str
    quota: int
    replicas: int
    gpus: int
    greedy: int
    secret_email: str
    secret_card: str
    tensors: int

    @property
    def namespace(self) -> str:
        return f"{self.team}-prod"


def choose(seed: int) -> Cast:
    """The same cast for the same seed."""
    pick = random.Random(seed)  # noqa: S311  (names for a story, no secrets)
    people = pick.sample(PEOPLE, 4)
    team, other = pick.sample(TEAMS, 2)
    gpus, replicas = pick.randint(1, 4), pick.randint(1, 4)
    quota = gpus * replicas + pick.randint(0, 3)
    return Cast(
        tenant=pick.choice(TENANTS),
        team=team,
        other_team=other,
        author=people[0],
        approvers=(people[1], people[2]),
        model=f"{pick.choice(MODELS)}-{pick.randint(1, 70)}b@{pick.randint(1, 40)}",
        dataset=f"{pick.choice(DATASETS)}@{pick.randint(2019, 2026)}",
        purpose=pick.choice(PURPOSES),
        licence=pick.choice(LICENCES),
        quota=quota,
        replicas=replicas,
        gpus=gpus,
        greedy=quota // gpus + 1,
        secret_email=f"{people[3]}.{pick.randint(100, 999)}@example.org",
        secret_card=_card(pick),
        tensors=pick.randint(2, 6),
    )


def _card(pick: random.Random) -> str:
    """A number of a test range that passes the Luhn check and belongs to nobody."""
    digits = [int(digit) for digit in "400000"] + [pick.randrange(10) for _ in range(9)]
    total = sum(sum(divmod(digit * 2, 10)) if at % 2 == 0 else digit for at, digit in enumerate(digits))
    return "".join(map(str, [*digits, -total % 10]))
