"""What the daemon does, on top of the ports; knows neither `mtastsd.net` nor `mtastsd.store`."""
