"""The page behind ``osmotic serve``: a model to play with in the browser, on this machine."""
