"""What a data set is."""


class Datum:
    """One image."""

    def __init__(self, impath="", label=0, domain=0, classname=""):
        self.impath, self.label, self.domain, self.classname = impath, label, domain, classname


class DatasetBase:
    """Items and the class names that their labels stand for."""

    def __init__(self, train_x=None, train_u=None, val=None, test=None):
        self.train_x, self.train_u, self.val, self.test = train_x, train_u, val, test
        self.lab2cname = dict(sorted({item.label: item.classname for item in train_x}.items()))
        self.classnames = list(self.lab2cname.values())
        self.num_classes = len(self.classnames)
