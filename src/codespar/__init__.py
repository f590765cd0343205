"""CodeSpar: a persistent AI agent for every software project of a team, in the team's chat."""

__version__ = "0.1.0"
