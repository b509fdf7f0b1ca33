"One folder a model family. `latentlab.families()` gives their records, see `latentlab.core.registry`."
from latentlab import make_callable

make_callable(__name__)
