"""What every service needs: bootstrap, settings, errors, identity, events, artifacts."""
