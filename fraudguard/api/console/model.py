"""The model page."""

from fastapi import APIRouter

router = APIRouter()
