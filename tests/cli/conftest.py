from tests.cli.fakes import command as command
