"""People's own data: tables, folders of images, texts, series, and what other libraries load.

Each dataset has two halves. What the contract must know (classes, columns, sizes) is found out torch-free by
its `..._config` module, once, and kept in the cache (`facts`); the other module loads the data.
"""
