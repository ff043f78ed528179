"""Two collections of drawn images, for the demo and the tests: photographs and line drawings of the same kinds of thing."""
