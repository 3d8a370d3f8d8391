"""The only room that knows torch: releases, the scoring engine, and the guard the service calls it through."""
