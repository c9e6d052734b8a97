"""What presend's web sites stand on: pages from templates, sessions, forms that no other site can send.

Two sites are built on it: the operators' console (``worker.console``) and the customers' query page. Each is
an ASGI application that can run alone or be mounted under a path of another one.

=================  ===============================================================================
``site``           a site: its routes, its folders, who may log in; every request goes through it
``visit``          one request: who asks, in which language; renders, redirects, reads the database
``sessions``       the cookie, the session behind it, the token each form carries
``cross_site``     posts sent by other sites, and hosts that are not ours, are refused
``headers``        the security headers of every answer
``throttle``       log-in attempts that come too often wait
``wording``        texts in Chinese and English, from ``texts/*.toml``
``pages``          the templates' environment: filters and globals
``assets``         stylesheets and scripts, read once, named by their content
=================  ===============================================================================

A site in few words::

    site = Site(
        kind="query",                            # names its cookies and sessions
        folder=Path(__file__).parent,            # holds templates/, texts/en.toml, texts/zh.toml, static/
        database=engine,                         # migrated
        principal=find_account,                  # (connection, subject) -> who that is, None: logged out
        timezone="Asia/Shanghai",                # in which times are shown
        menu=[MenuItem("/", "menu.look_up")],
        public_urls=["https://query.example.com"],   # besides 127.0.0.1, localhost, and the listener's host
    )
    app = site.app([
        site.page("/", home),
        site.page("/rates", rates, polled=True),     # asked again and again by htmx: is no sign of life
        site.page("/log-in", log_in_page, public=True),
        site.action("/log-in", log_in, public=True),
        site.action("/log-out", log_out),
        site.action("/jobs", upload, max_body_bytes=64 * 2**20),
    ])

An endpoint is a plain function of a :class:`~worker.web.visit.Visit`, run on a thread, or a coroutine::

    def home(visit: Visit) -> Response:
        rows = visit.read(lambda connection: jobs.of(connection, visit.principal.id))
        return visit.render("home.html", rows=rows)

    def rename(visit: Visit) -> Response:
        visit.transact(lambda connection: jobs.rename(connection, visit.form("id"), visit.form("name")))
        return visit.redirect("/", notice="job.renamed")     # a text's key; shown once by the next page

    def log_in(visit: Visit) -> Response:
        with visit.attempt(subject=name) as attempt:          # Refused(429) where it comes too often
            found = visit.read(lambda connection: check(connection, name, password))
            if found is None:
                return visit.render("log_in.html", status=403, wrong=True)
            attempt.succeeded()
        return visit.log_in(subject=found.name)              # redirects to ``next`` or the home page

``raise Refused(403)`` (or 404, 413, 429) anywhere shows the error page in the visitor's language.

Templates extend ``base.html`` (blocks ``title``, ``head``, ``account``, ``main``, ``scripts``) and may
``{% import "parts.html" as parts with context %}`` for what recurs: badges, empty lists, figures, paging.
``say('key', name=value)`` is a text, ``to('/path', page=2)`` a link, ``asset('x.css')`` a file; each form
that posts holds ``{{ form_token() }}``; ``visit`` is there. Filters: ``moment``, ``number``, ``masked``.

Scripts come from ``static/`` and ``vendor/`` alone: the content security policy allows no inline script, no
inline style, no eval. So htmx is set to use none (no ``hx-on``, no filter in ``hx-trigger``), and a ``style``
attribute has no effect (``<progress value max>`` draws a bar). A part that is asked for again and again::

    <section hx-get="{{ to('/rates') }}" hx-trigger="every 2s" hx-swap="innerMorph">…</section>
    {% block scripts %}<script src="{{ asset('htmx-4.0.1.min.js') }}" defer></script>{% endblock %}

A text that is missing in one language, or used and in none, fails ``tests/unit/test_web_wording.py``, which
looks into every site's folder.
"""
