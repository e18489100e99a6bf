"""`python -m reward_service.cli`, which `accelerate launch -m` needs."""

from reward_service.cli import app

app()
