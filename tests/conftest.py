"What holds for every test, said before anything imports torch."
import os

os.environ['HF_HUB_OFFLINE'] = '1'              # no test may reach for the network
# a worker for each core and one thread each (pyproject.toml): two threads on two
# cores that are both busy wait for each other at every small product
os.environ.setdefault('OMP_NUM_THREADS', '1')


def pytest_collection_modifyitems(items):
    "Processes that train come first and notebooks next; what takes no time fills the end."
    rank = {'test_cli': 0, 'test_evaluate': 0, 'test_notebooks': 1}
    items.sort(key=lambda item: rank.get(item.path.stem, 2))
