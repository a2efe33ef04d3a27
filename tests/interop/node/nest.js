'use strict'

// The same as a NestJS application with nestjs-session; decorators are applied by hand, so that
// nothing has to be compiled.

require('reflect-metadata')

const { Controller, HttpCode, Module, Param, Post, Req, Session } = require('@nestjs/common')
const { NestFactory } = require('@nestjs/core')
const { SessionModule } = require('nestjs-session')

const actions = require('./actions')
const options = require('./options')

class ActionsController {
  async act(request, action, session) {
    if (session !== request.session) throw new Error('@Session() is not the request\'s session')
    return { result: await actions[action](request) }
  }
}

const act = Object.getOwnPropertyDescriptor(ActionsController.prototype, 'act')
Controller()(ActionsController)
Post(':action')(ActionsController.prototype, 'act', act)
HttpCode(200)(ActionsController.prototype, 'act', act)
Req()(ActionsController.prototype, 'act', 0)
Param('action')(ActionsController.prototype, 'act', 1)
Session()(ActionsController.prototype, 'act', 2)

class AppModule {}

Module({
  imports: [SessionModule.forRootAsync({ useFactory: async () => ({ session: await options() }) })],
  controllers: [ActionsController],
})(AppModule)

const main = async () => {
  const app = await NestFactory.create(AppModule, { logger: false })
  await app.listen(Number(process.env.PORT), '127.0.0.1')
}

main()
