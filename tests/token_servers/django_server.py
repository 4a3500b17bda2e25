"""django-oauth-toolkit, which reads client_secret_basic form-encoded and keeps a hash of the secret.

One JSON argument: id, secret. Prints `ready PORT`, then `asked` for each token request.
"""

import json
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings

given = json.loads(sys.argv[1])
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    OAUTH2_PROVIDER={"SCOPES": {"read": "Read"}, "DEFAULT_SCOPES": ["read"]},
    ROOT_URLCONF=__name__,
    SECRET_KEY="of no use",
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402
from oauth2_provider.models import get_application_model  # noqa: E402
from oauth2_provider.views import TokenView  # noqa: E402

urlpatterns = [path("token", TokenView.as_view())]
call_command("migrate", verbosity=0)
Application = get_application_model()
Application.objects.create(
    client_id=given["id"],
    client_secret=given["secret"],
    client_type=Application.CLIENT_CONFIDENTIAL,
    authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
)
application = get_wsgi_application()


def counted(environ, start_response):
    print("asked", flush=True)
    return application(environ, start_response)


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


with make_server("127.0.0.1", 0, counted, handler_class=Quiet) as httpd:
    print("ready", httpd.server_port, flush=True)
    httpd.serve_forever()
