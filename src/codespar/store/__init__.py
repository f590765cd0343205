"""What is remembered: tables, migrations, inbox, outbox, audit chain. The one place that knows SQL."""
