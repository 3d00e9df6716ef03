"""The other defences of Table II, a file each: how they make the images and labels that a classifier is trained on."""
