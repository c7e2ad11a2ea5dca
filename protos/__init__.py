"""Our own contracts: the rules that policy servers receive over ADS."""
