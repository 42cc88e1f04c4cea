from django.contrib import admin
from django.urls import path

from demo import views

urlpatterns = [
    path("", views.home),
    path("state", views.state),
    path("bump", views.bump),
    path("admin/", admin.site.urls),
]
