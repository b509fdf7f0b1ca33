"How a run is trained. `latentlab.train(\"hvae\", steps=4000)` trains one, see `latentlab.facade.train`."
from latentlab import make_callable

make_callable(__name__)
