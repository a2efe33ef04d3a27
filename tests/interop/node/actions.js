'use strict'

// What a request can do to its session; each is called with the request and answers with JSON.

const visible = ({ cookie, __aiosess, ...data }) => data

const called = (object, method) =>
  new Promise((resolve, reject) => {
    object[method]((error) => (error ? reject(error) : resolve()))
  })

module.exports = {
  async read(request) {
    return visible(request.session)
  },

  async write(request) {
    Object.assign(request.session, request.body)
    return visible(request.session)
  },

  async remove(request) {
    delete request.session[request.body.key]
    return visible(request.session)
  },

  async login(request) {
    await called(request.session, 'regenerate')
    request.session.principal = request.body.principal
    return visible(request.session)
  },

  // As Passport does with keepSessionInfo: all that was in the old session goes into the new one.
  async loginKeepingAll(request) {
    const { cookie, ...before } = request.session
    await called(request.session, 'regenerate')
    Object.assign(request.session, before, request.body)
    return visible(request.session)
  },

  async logout(request) {
    await called(request.session, 'destroy')
    return null
  },

  async maxAge(request) {
    request.session.cookie.maxAge = request.body.milliseconds
    // Express does not write a session of which only the cookie has changed.
    await called(request.session, 'save')
    return null
  },

  async cookie(request) {
    return { milliseconds: request.session.cookie.originalMaxAge }
  },

  async id(request) {
    return request.sessionID
  },
}
