"""Storage locations: where images are published to, and pulled from.

From the bottom up: `content` is what goes there, `objects` what every location can do, `directory`, `s3`, `webdav` and
`registry` are those that can, `places` and `locations` what users have added. `layouts` says how an image lies there,
`document` how it is described, `index` how all of them are listed. `publications` are wishes to publish, `publisher` is
one attempt at one of them.
"""
