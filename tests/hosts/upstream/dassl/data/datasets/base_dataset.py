"""What a data set is."""

import random


class Datum:
    """One image; what is read from outside are properties, as the pickles of shots show."""

    def __init__(self, impath="", label=0, domain=0, classname=""):
        self._impath, self._label, self._domain, self._classname = impath, label, domain, classname

    impath = property(lambda self: self._impath)
    label = property(lambda self: self._label)
    domain = property(lambda self: self._domain)
    classname = property(lambda self: self._classname)


class DatasetBase:
    """Items and the class names that their labels stand for."""

    def __init__(self, train_x=None, train_u=None, val=None, test=None):
        self.train_x, self.train_u, self.val, self.test = train_x, train_u, val, test
        self.lab2cname = dict(sorted({item.label: item.classname for item in train_x}.items()))
        self.classnames = list(self.lab2cname.values())
        self.num_classes = len(self.classnames)

    def generate_fewshot_dataset(self, *data_sources, num_shots=-1, repeat=False):
        """Draw shots of each class from the main random stream; too small a class is whole."""
        sources = [list(source) for source in data_sources]
        if num_shots > 0:
            for source in sources:
                by_label = {}
                for item in source:
                    by_label.setdefault(item.label, []).append(item)
                source[:] = []
                for items in by_label.values():
                    few = len(items) < num_shots
                    source.extend(items if few else random.sample(items, num_shots))
        return sources[0] if len(sources) == 1 else sources
