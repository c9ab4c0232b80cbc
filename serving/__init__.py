"""Answer readers over HTTP: `api` serves the rows of views, `console` is the operator's page beside it."""
