"""The doctor's look at configured servers, on real ones."""

from fraudguard import doctor


def test_running_servers_answer(kafka, postgres):
    """A reachable Kafka and PostgreSQL are found with what they are; one of several brokers is enough."""
    found = doctor.broker(f"127.0.0.1:1,{kafka.bootstrap}")
    assert found.ok
    assert found.found.endswith(f"answers at {kafka.bootstrap}")
    found = doctor.database(postgres.url)
    assert found.ok
    assert found.found == f"18.4 answers at 127.0.0.1:{postgres.port}/fraudguard"


def test_wrong_password_is_said_without_showing_it(postgres):
    """The server's own reason is the finding."""
    found = doctor.database(f"postgresql://fraudguard:guessed@127.0.0.1:{postgres.port}/fraudguard")
    assert not found.ok
    assert "password authentication failed" in found.found
    assert "guessed" not in found.found
