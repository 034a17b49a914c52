"""Pictures with labels, from the built-in birds, CIFAR-10 and folders, and the task made of them."""
