"""Two collections of drawn images, for the demo: photographs and line drawings of the same kinds of thing."""
