"""The commented examples of both settings files. Each is valid as it stands, and with every commented-out key put in."""

EXAMPLE = """\
# codespar.yaml: one file for the installation. `codespar doctor` checks it.
# Secrets never stand here: set them in the environment.

data_dir: .codespar              # databases, repositories and task folders; relative to this file
# database_url: postgresql://codespar@localhost/codespar   # default: SQLite in data_dir; PGPASSWORD holds the password

server:
  host: 127.0.0.1                # loopback only; put TLS in front before you open it
  port: 7477                     # 0 picks a free one

model:
  name: claude-sonnet-5-5
  base_url: https://api.anthropic.com
  api_key_env: ANTHROPIC_API_KEY # the variable that holds the key, never the key
  # understanding: anthropic:claude-haiku-5-5   # plain language becomes commands; left out: commands alone
  # review: anthropic:claude-sonnet-5-5         # reads pull requests; left out: analysers alone

# sandbox:
#   docker_host: unix:///var/run/docker.sock   # default: DOCKER_HOST, else the local socket
#   base_image: debian:bookworm-slim           # a Debian or Ubuntu to build task images from
#   ca_bundle: /etc/ssl/certs/ca-certificates.crt
#   caps:                        # the most a project or repository may raise its limits to
#     cost: $10
#     memory: 4g

# limits:                        # of every task; a project may set its own
#   cost: $5                     # at a limit the work is kept and you are asked
#   turns: 100
#   wall: 1h
#   stall: 5m
#   memory: 2g
#   cpus: 2
#   tmp: 512m
#   output: 64m

# policies:
#   budget:
#     answer_within: 1h          # how long a task at its limit waits for your answer
#   autonomy:
#     cap: L4                    # no project works above it
#   rollback: auto               # ask: the rollback of a bad deploy asks again
#   approvals:
#     expires: 1h
#     critical_expires: 15m
#   environments:
#     - name: production
#       quorum: 2                # people who approve a deploy; who asks never counts
#       windows: ["Mon-Fri 09:00-17:00 Europe/Lisbon"]   # no deploys at other times
#   freezes:
#     - name: christmas
#       during: ["2026-12-20 to 2027-01-02 Europe/Lisbon"]
#       unless: [owner]
#   rules:
#     - name: two-eyes
#       effect: ask              # or deny; a rule never allows more
#       what: [merge]
#       approvals: 2
#   paths:
#     - name: infra              # what no agent changes without a human
#       patterns: ["infra/", "*.tf"]

# github:                        # GitHub as the code host; a repository is then written owner/name
#   token_env: CODESPAR_GITHUB_TOKEN                     # a fine-grained token, or an App:
#   app_id: 123456
#   private_key_file: /etc/codespar/github-app.pem
#   webhook_secret_env: CODESPAR_GITHUB_WEBHOOK_SECRET   # webhooks come to POST /webhooks/github
# look_every: 1m                 # how often a repository that is not at GitHub is looked at

# reviews:                       # of pull requests; the model is set by model.review
#   approve_up_to: low           # the highest risk approved without a person; none: never
#   request_changes_from: high
#   protected_paths: [".github/", "migrations/"]

# housekeeping:                  # what is of no use any more is removed after so long, or `never`
#   images: 14d                  # of containers, since their last use
#   attachments: 30d
#   folders: 14d                 # of tasks and reviews that have ended
#   messages: 90d                # that were dealt with; at least 30d

# channels:                      # the chat platforms; each one's page is in docs/channels/
#   slack: {}                    # tokens from CODESPAR_SLACK_BOT_TOKEN and CODESPAR_SLACK_APP_TOKEN
#   telegram:
#     token_env: CODESPAR_TELEGRAM_TOKEN

# notifications:                 # what is told unasked
#   per_hour: 10                 # messages a place
#   batch: 5m                    # what is not critical is gathered
#   quiet_hours: 22:00-08:00     # only what is critical is told
#   time_zone: Europe/Lisbon

# screening:
#   allowed_hosts: [wiki.corp]   # internal hosts that may be named without a remark

# people:
#   - name: Ada
#     role: owner                # owner, emergency_admin, maintainer, operator, reviewer, read-only
#     id: ada
#     token_env: CODESPAR_TOKEN_ADA
#     identities:                # her own ids on chat platforms; or she links them herself by a one-time code
#       slack: T024BE7LD:U023BECGF
#       github: "583231"         # the account's number, never its name

# projects:
#   - name: shop
#     repository: /srv/git/shop.git   # a path, a URL that git understands, or owner/name at GitHub
#     alias: [sh]
#     autonomy: L1
#     max_concurrent_tasks: 3
#     limits:
#       memory: 4g
#     blocked_paths: [".github/", "*.pem"]
#     channels:                  # where its team talks to it; or `@codespar link shop` there
#       - channel: slack
#         conversation: T024BE7LD:C012AB3CD
#         alerts: [all]          # tasks, builds, deploys, errors, incidents, reviews, reports
#     schedules:                 # commands that come by the clock
#       - name: morning
#         cron: "0 9 * * 1-5"    # minute, hour, day of month, month, day of week
#         time_zone: Europe/Lisbon
#         run: status build
#       - name: tidy
#         cron: "0 17 * * 5"
#         run: instruct update the changelog
#         by: ada                # with her rights; without it the agent's own
"""

EXAMPLE_REPOSITORY = """\
# .codespar.yaml: what CodeSpar needs to know of this repository. Read from the default branch only.

test: make test                  # run in a second, clean container before a pull request is opened

# environment:
#   # image: registry.example.com/team/shop-dev:3   # a ready image, or
#   # dockerfile: Dockerfile.dev                    # one of the repository's, or
#   setup:                       # commands at image-build time, as root, with network
#     - pip install -r requirements.txt
#   inputs: [requirements.txt]   # files the set-up reads; a change builds the image anew
#   variables:
#     CI: "1"

# limits:
#   memory: 4g

# blocked_paths: ["migrations/"]
# blocked_commands: ["terraform apply"]

# review:                        # can only be stricter than codespar.yaml
#   approve_up_to: none
#   protected_paths: ["auth/"]
#   ignore: ["tests/fixtures/"]  # files about which nothing is said
#   analysers:                   # programs that write SARIF, run without network
#     - name: lint
#       command: ./tools/lint --sarif "$SARIF"
#       within: 2m
#       endings: [.py]
#   without: [semgrep]           # built-in analysers to leave out
#   coverage: coverage*          # the artefacts in which builds leave their coverage report
"""
