"""Makes each process of the tests cheaper, and changes nothing of what they see."""
import gc


def pytest_collection_finish(session):
    """Modules and tests stay to the end: the collector need not go through them whenever a graph is made."""
    gc.collect()
    gc.freeze()
